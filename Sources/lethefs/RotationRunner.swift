import CLinux
import ControlPlane
import FoundationEssentials
import Storage
import Synchronization
import VolumeEngine
import VolumeFormat

/// Runs a rotation where the volume is: in its daemon, or here if nobody has it mounted. A terminal sees how far it is.
enum RotationRunner {
    static func run<R: Codable & Sendable>(
        _ target: String, _ verb: ControlVerb, _ arguments: [String: String], roots: [String] = [],
        readOnly: Bool = false, _ offline: (Rotation) throws -> R
    ) throws -> R {
        switch try Target(target) {
        case .mounted(let record, _):
            let progress = ProgressLine { () -> [Sweeps.Status] in
                (try? DaemonClient.ask(record, .sweeps, timeoutSeconds: 5)) ?? []
            }
            defer { progress.end() }
            return try DaemonClient.ask(record, verb, arguments, timeoutSeconds: 7 * 24 * 3600)
        case .lower(let lower):
            let volume = try OfflineVolume.open(lower, readOnly: readOnly, roots: roots)
            let rotation = Rotation(
                mount: volume.mount, roots: volume.roots, host: volume.host, lower: lower, sweeps: Sweeps()
            ) { _ in }
            let progress = ProgressLine { rotation.sweeps.status }
            let result = Result { try offline(rotation) }
            progress.end()
            // Closed in any case: what was done is done.
            try volume.close()
            return try result.get()
        }
    }
}

/// A line on a terminal, once a second, while something long is under way.
final class ProgressLine: Sendable {
    private let ended = Atomic<Bool>(false)
    private let shown = Atomic<Bool>(false)

    init(_ status: @escaping @Sendable () -> [Sweeps.Status]) {
        guard isatty(2) == 1 else { return }
        PlainThread.detach { [self] in
            var ticks = 0
            var last: (bytes: UInt64, at: Double) = (0, SweepClock.now)
            while !ended.load(ordering: .acquiring) {
                usleep(100_000)
                ticks += 1
                guard ticks % 10 == 0, let sweep = status().first, !ended.load(ordering: .acquiring) else { continue }
                let now = SweepClock.now
                let rate = Double(sweep.sealedBytes - min(last.bytes, sweep.sealedBytes)) / max(0.001, now - last.at)
                last = (sweep.sealedBytes, now)
                shown.store(true, ordering: .releasing)
                FileHandle.standardError.write(
                    "\r\(Sweeps.words(sweep)), \(UInt64(rate) >> 20) MiB/s   "
                )
            }
        }
    }

    func end() {
        guard !ended.exchange(true, ordering: .acquiringAndReleasing) else { return }
        if shown.load(ordering: .acquiring) { FileHandle.standardError.write("\n") }
    }
}
