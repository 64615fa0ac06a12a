import CLinux
import ControlPlane
import FoundationEssentials
import Synchronization
import VolumeEngine
import VolumeFormat

/// The sweeps of a process: one that changes something at a time in each zone, and any number that only count. All are told to end
/// when the process is about to.
final class Sweeps: Sendable {
    enum Kind: String, Codable, Sendable { case rewrap, reencrypt, shred, keys, assign, coverage }

    /// What `reencrypt --status` and a terminal's line of progress show.
    struct Status: Codable, Sendable {
        var zone: UInt32
        var kind: Kind
        var files: UInt64
        var directories: UInt64
        var links: UInt64
        var bytes: UInt64
        var changed: UInt64
        var sealedBytes: UInt64
        /// How much there is, as far as it is known: an estimate.
        var totalFiles: UInt64?
        var totalBytes: UInt64?
        /// Of `totalBytes`, those that a re-encryption is done with.
        var passedBytes: UInt64
        /// At the pace so far.
        var secondsLeft: Double?
        var failed: UInt64
        var paused: Bool
        var seconds: Double
    }

    /// `2 of 50 files, …, 3 min left`
    static func words(_ sweep: Status) -> String {
        var words = sweep.kind.rawValue + (sweep.paused ? " (paused)" : "") + ": \(sweep.files)"
        if let total = sweep.totalFiles { words += " of \(max(total, sweep.files))" }
        words += " files"
        if sweep.kind == .reencrypt, let total = sweep.totalBytes {
            words += ", \(sweep.passedBytes >> 20) of \(max(total, sweep.passedBytes) >> 20) MiB"
        }
        words += ", \(sweep.changed) done, \(sweep.sealedBytes >> 20) MiB sealed"
        if sweep.failed > 0 { words += ", \(sweep.failed) FAILED" }
        guard let left = sweep.secondsLeft.map({ Int($0.rounded(.up)) }) else { return words }
        return words + ", \(left < 120 ? "\(left) s" : left < 7200 ? "\(left / 60) min" : "\(left / 3600) h") left"
    }

    private struct Running {
        /// The first is the one that it is shown for.
        var zones: [ZoneID]
        var kind: Kind
        let control: SweepControl
        let start: Double
        var changes: Bool { kind != .coverage }

        func excludes(_ other: [ZoneID]) -> Bool { changes && zones.contains(where: other.contains) }
    }

    private let running = Mutex<(sweeps: [Int: Running], next: Int)>(([:], 0))
    private let ending = Atomic<Bool>(false)

    var isEnding: Bool { ending.load(ordering: .acquiring) }

    /// Runs a sweep in a zone; another one that changes something there is a reason to refuse.
    func run<R>(_ zone: ZoneID, _ kind: Kind, _ body: (SweepControl) throws -> R) throws -> R {
        try run([zone], kind, body)
    }

    /// The same in several zones at once.
    func run<R>(_ zones: [ZoneID], _ kind: Kind, _ body: (SweepControl) throws -> R) throws -> R {
        let sweep = Running(zones: zones, kind: kind, control: SweepControl(), start: SweepClock.now)
        let (id, other) = running.withLock { running -> (Int, Running?) in
            if sweep.changes, let other = running.sweeps.values.first(where: { $0.excludes(zones) }) {
                return (0, other)
            }
            running.next += 1
            running.sweeps[running.next] = sweep
            return (running.next, nil)
        }
        if let other {
            throw Failure(
                .inUse, "a sweep (\(other.kind.rawValue)) is under way in zone \(other.zones[0].rawValue)",
                meaning: "It goes on.",
                remedy: "wait for it; reencrypt --status  shows it, reencrypt --cancel  ends a re-encryption")
        }
        defer { running.withLock { $0.sweeps[id] = nil } }
        if isEnding { sweep.control.cancel() }
        return try body(sweep.control)
    }

    /// A sweep goes on in its first zone alone, as one of another kind.
    func narrow(_ control: SweepControl, to kind: Kind) {
        running.withLock { running in
            guard let (id, sweep) = running.sweeps.first(where: { $1.control === control }) else { return }
            running.sweeps[id]?.zones = [sweep.zones[0]]
            running.sweeps[id]?.kind = kind
        }
    }

    /// True while something is changed in a zone.
    func isRunning(_ zone: ZoneID) -> Bool {
        running.withLock { $0.sweeps.values.contains { $0.excludes([zone]) } }
    }

    /// The control of a sweep of that kind, if one is under way.
    func control(_ zone: ZoneID, _ kind: Kind) -> SweepControl? {
        running.withLock { $0.sweeps.values.first { $0.zones.contains(zone) && $0.kind == kind }?.control }
    }

    var status: [Status] {
        running.withLock { running in
            running.sweeps.sorted { $0.key < $1.key }.map { _, sweep in
                let (progress, total) = (sweep.control.progress, sweep.control.total)
                return Status(
                    zone: sweep.zones[0].rawValue, kind: sweep.kind, files: progress.files,
                    directories: progress.directories,
                    links: progress.links, bytes: progress.bytes, changed: progress.changed,
                    sealedBytes: progress.sealed, totalFiles: total?.files, totalBytes: total?.bytes,
                    passedBytes: progress.passed, secondsLeft: sweep.control.secondsLeft, failed: progress.failed,
                    paused: sweep.control.isPaused,
                    seconds: SweepClock.now - sweep.start)
            }
        }
    }

    /// Tells all to end, and waits until they have.
    func end() {
        ending.store(true, ordering: .releasing)
        while true {
            let left = running.withLock { running in
                for sweep in running.sweeps.values { sweep.control.cancel() }
                return !running.sweeps.isEmpty
            }
            guard left else { return }
            usleep(10_000)
        }
    }
}
