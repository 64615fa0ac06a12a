import Synchronization
import VolumeFormat

/// Zones that commands hold from one request to another. What a command has is its own until it gives it back, or ends: nothing is left
/// behind by one that was killed.
package final class ZoneClaims: Sendable {
    private struct Claim {
        let process: Int32
        /// Of the process: its number may come again.
        let start: UInt64
        var isHeld: Bool { ProcessState.start(process) == start }
    }

    // Held to ask for a few processes, and by nothing that programs wait for.
    private let claims = Mutex<[ZoneID: Claim]>([:])

    package init() {}

    /// All of the zones for a process, or none: then a zone that another process holds, and that one. A process that does not run
    /// (or that cannot be seen from here) holds nothing, and keeps nobody away.
    package func take(_ zones: Set<ZoneID>, for process: Int32) -> (zone: ZoneID, process: Int32)? {
        claims.withLock { claims in
            claims = claims.filter { $1.isHeld }
            for zone in zones.sorted(by: { $0.rawValue < $1.rawValue }) {
                if let other = claims[zone], other.process != process { return (zone, other.process) }
            }
            guard let start = ProcessState.start(process) else { return nil }
            for zone in zones { claims[zone] = Claim(process: process, start: start) }
            return nil
        }
    }

    /// Those of the zones that the process holds are free again.
    package func giveBack(_ zones: Set<ZoneID>, of process: Int32) {
        claims.withLock { claims in
            for zone in zones where claims[zone]?.process == process { claims[zone] = nil }
        }
    }

    /// True while a process that has it runs.
    package func isHeld(_ zone: ZoneID) -> Bool { claims.withLock { $0[zone] }?.isHeld == true }
}
