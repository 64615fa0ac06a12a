import CLinux
import Synchronization
import VolumeFormat

/// How a sweep is steered from outside, and what it has done so far. Shared by all its threads.
package final class SweepControl: Sendable {
    /// Figures of a sweep. Objects are counted once they are done.
    package struct Progress: Sendable, Equatable {
        package var files: UInt64 = 0
        package var directories: UInt64 = 0
        package var links: UInt64 = 0
        /// Plaintext bytes of the files that were looked at.
        package var bytes: UInt64 = 0
        /// Files and directories whose header was changed, links that were sealed anew.
        package var changed: UInt64 = 0
        /// Bytes that were sealed anew.
        package var sealed: UInt64 = 0
        /// Of `bytes`, those that the sweep is done with, whether or not they had to be sealed anew.
        package var passed: UInt64 = 0
        /// Objects that could not be done.
        package var failed: UInt64 = 0
    }

    /// How much there is to look at: an estimate, since programs go on.
    package struct Total: Sendable, Equatable {
        package var files: UInt64
        package var bytes: UInt64
    }

    private let state = Mutex(Progress())
    private let expected = Mutex<(total: Total, at: UInt64)?>(nil)
    private let stop = Atomic<Bool>(false)
    private let waiting = Atomic<Bool>(false)
    private let yielding = Atomic<Bool>(false)
    /// Bytes a second; 0 for no limit.
    private let limit = Atomic<UInt64>(0)
    private let bucket = Mutex<(bytes: Double, at: UInt64)>((0, 0))
    private let firstFailures = Mutex<[String]>([])
    private static let keptFailures = 10

    package init() {}

    package var progress: Progress { state.withLock { $0 } }
    func count(_ change: (inout Progress) -> Void) { state.withLock { change(&$0) } }

    /// `nil` until it is known.
    package var total: Total? { expected.withLock { $0?.total } }
    func expect(_ total: Total?) {
        expected.withLock { $0 = total.map { ($0, Self.nanoseconds) } }
    }

    /// Seconds left at the pace so far, by bytes where bytes are passed and by files otherwise; `nil` while nobody can tell.
    package var secondsLeft: Double? {
        guard !isPaused, let (total, since) = expected.withLock({ $0 }) else { return nil }
        let now = progress
        let byBytes = now.passed > 0 || now.sealed > now.files * UInt64(Geometry.headerSize)
        // A file costs about as much as four pages.
        let file: UInt64 = byBytes ? 16_384 : 1
        let done = byBytes ? Double(now.passed) + Double(now.files * file) : Double(now.files)
        let all = byBytes ? Double(total.bytes) + Double(total.files * file) : Double(total.files)
        let passed = Double(Self.nanoseconds - since) / 1e9
        guard passed >= 1, done > 0 else { return nil }
        return max(0, passed * (all - done) / done)
    }

    /// Plaintext paths and reasons of the first objects that could not be done.
    package var failures: [String] { firstFailures.withLock { $0 } }
    func noteFailure(_ text: String) {
        count { $0.failed += 1 }
        firstFailures.withLock { if $0.count < Self.keptFailures { $0.append(text) } }
    }

    package var isCancelled: Bool { stop.load(ordering: .acquiring) }
    package func cancel() { stop.store(true, ordering: .releasing) }
    package var isPaused: Bool { waiting.load(ordering: .acquiring) }
    package func setPaused(_ paused: Bool) { waiting.store(paused, ordering: .releasing) }
    /// Programs go first: the sweep works a fifth of the time while they read or write.
    package func setYields(_ yields: Bool) { yielding.store(yields, ordering: .releasing) }
    package func setRate(bytesPerSecond: UInt64) { limit.store(bytesPerSecond, ordering: .releasing) }

    private static let tick: UInt32 = 20_000

    static var nanoseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Called between two pieces of work, with no lock held: waits while the sweep is paused, too fast, or in the way of programs.
    /// `worked` is how long the last piece took, in nanoseconds; `uses` counts the programs' requests (see `BufferPool.uses`).
    /// False when the sweep is to end. Without `waitsForPause` a pause is left to a later call; `whilePaused` is called once at least before
    /// it is waited for.
    func pace(
        bytes: UInt64, worked: UInt64 = 0, uses: Int? = nil, lastUses: inout Int, waitsForPause: Bool = true,
        whilePaused: () -> Void = {}
    ) -> Bool {
        while isPaused, waitsForPause, !isCancelled {
            whilePaused()
            usleep(Self.tick)
        }
        if yielding.load(ordering: .relaxed), let uses {
            let active = uses != lastUses
            lastUses = uses
            if active { sleep(nanoseconds: min(4 * worked, 200_000_000)) }
        }
        let rate = Double(limit.load(ordering: .relaxed))
        if rate > 0, bytes > 0 {
            let due = bucket.withLock { bucket in
                let now = Self.nanoseconds
                let passed = bucket.at == 0 ? 0 : Double(now - bucket.at) / 1e9
                // What was not used up to a tenth of a second ago may still be used.
                bucket.bytes = min(bucket.bytes + passed * rate, rate / 10) - Double(bytes)
                bucket.at = now
                return max(0, -bucket.bytes / rate)
            }
            sleep(nanoseconds: UInt64(due * 1e9))
        }
        return !isCancelled
    }

    /// In short steps, so that a cancellation is seen.
    private func sleep(nanoseconds: UInt64) {
        var left = nanoseconds / 1000
        while left > 0, !isCancelled {
            let step = min(left, UInt64(Self.tick))
            usleep(UInt32(step))
            left -= step
        }
    }
}

extension UInt64 {
    /// Sizes are what the lower storage says, and their sum may be anything.
    mutating func addUpToMaximum(_ more: UInt64) {
        let (sum, isTooMuch) = addingReportingOverflow(more)
        self = isTooMuch ? .max : sum
    }
}
