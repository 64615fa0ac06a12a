import CLinux
import Synchronization
import VolumeEngine

/// What a daemon does now and then: gives memory back to the system once the kernel has forgotten many inodes, or no program has read or
/// written anything for a while.
package final class Housekeeping: Sendable {
    private static let intervalMicroseconds: UInt32 = 500_000
    /// So many inodes less than at the last look are worth a trim.
    private static let worthTrimming = 1024
    /// After each so many looks without a read or a write: ten seconds.
    private static let quietLooks = 20

    private let volume: Volume
    private let stopped = Atomic<Bool>(false)

    package init(_ volume: Volume) { self.volume = volume }

    package func start() {
        Thread.detach { [self] in
            var highest = 0
            var (uses, quiet) = (0, 0)
            while !stopped.load(ordering: .acquiring) {
                usleep(Self.intervalMicroseconds)
                let known = volume.knownInodes
                highest = max(highest, known)
                let before = uses
                uses = volume.buffers.uses
                quiet = uses == before ? quiet + 1 : 0
                if quiet == Self.quietLooks {
                    quiet = 0
                    if volume.buffers.shrink() { linux_trim_heap() }
                }
                guard highest - known > Self.worthTrimming else { continue }
                linux_trim_heap()
                highest = known
            }
        }
    }

    package func stop() { stopped.store(true, ordering: .releasing) }
}
