import CLinux
import Synchronization

/// Does something for each of many items, on a few threads, where any of them may hang: in the lower storage, or in the kernel.
///
/// A program can hold the kernel up at one node: a listing is copied to the program's memory with its page locked, and that memory may be a
/// mapping of something that never answers. So an item that hangs holds up no other, since another thread takes its thread's place, and
/// whoever waits for all of them does not wait for ever.
package final class PatientWork: Sendable {
    private static let threads = 4
    /// Fewer items are not worth another thread.
    private static let share = 2048
    /// With those that hang.
    private static let mostThreads = 64
    /// Without one item done, so many microseconds make another thread join, or so many where several hang; and so many, since the last one has
    /// joined, make the rest lost ones.
    private static let hangs: UInt64 = 50_000
    private static let hangsAgain: UInt64 = 10_000
    private static let several = 8
    package static let isLost: UInt64 = 1_000_000

    private let count: Int
    private let body: @Sendable (Int) -> Void
    private let late: @Sendable (Int) -> Void
    private let done = Atomic<Int>(0)
    private let isGivenUp = Atomic<Bool>(false)
    // Leaf lock.
    private let state = Mutex<(next: Int, underWay: Set<Int>)>((0, []))

    /// `late` gets each item that is done when nobody waits for it any more.
    package init(
        _ count: Int, late: @escaping @Sendable (Int) -> Void = { _ in }, _ body: @escaping @Sendable (Int) -> Void
    ) {
        self.count = count
        self.late = late
        self.body = body
    }

    /// After `run`: the items at which it hangs.
    package var hanging: Set<Int> { state.withLock { $0.underWay } }
    /// After `run`: those that could not be begun for them.
    package var notBegun: Range<Int> { state.withLock { $0.next..<count } }

    /// Returns when it is done for all, or for all but those at which it hangs: how many those are, and what could not be begun for them.
    package func run(lostAfterMicroseconds: UInt64 = PatientWork.isLost) -> Int {
        guard count > 0 else { return 0 }
        var started = 0
        for _ in 0..<min(Self.threads, 1 + count / Self.share) where start() { started += 1 }
        // No thread can be had: rather here, where one that hangs is waited for, than not at all.
        if started == 0 { work() }
        var (seen, since, joined, pause) = (0, Self.microseconds, Self.microseconds, UInt32(20))
        var isWithoutThreads = false
        while true {
            let now = Self.microseconds
            let finished = done.load(ordering: .acquiring)
            if finished == count { return 0 }
            if finished != seen {
                (seen, since, joined, pause) = (finished, now, now, 20)
            } else if now - max(since, joined) >= lostAfterMicroseconds {
                isGivenUp.store(true, ordering: .sequentiallyConsistent)
                return count - finished
            } else if now - joined >= (started < Self.several ? Self.hangs : Self.hangsAgain),
                started < Self.mostThreads,
                !notBegun.isEmpty, !isWithoutThreads
            {
                if start() { started += 1 } else { isWithoutThreads = true }
                joined = now
            }
            usleep(pause)
            pause = min(pause * 2, 2000)
        }
    }

    private func start() -> Bool { PlainThread.detach { [self] in work() } }

    private func work() {
        while let item = take() {
            body(item)
            state.withLock { _ = $0.underWay.remove(item) }
            done.add(1, ordering: .sequentiallyConsistent)
            if isGivenUp.load(ordering: .sequentiallyConsistent) { late(item) }
        }
    }

    private func take() -> Int? {
        state.withLock { state in
            guard state.next < count else { return nil }
            defer { state.next += 1 }
            state.underWay.insert(state.next)
            return state.next
        }
    }

    private static var microseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000 + UInt64(time.tv_nsec) / 1000
    }
}
