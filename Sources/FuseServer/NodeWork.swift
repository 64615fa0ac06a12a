import CLinux
import Synchronization

/// Has the kernel do something for each of many nodes, on a few threads.
///
/// A program can hold the kernel up at one node: a listing is copied to the program's memory with its page locked, and that memory may be a
/// mapping of something that never answers. So a call that hangs holds up no other node, since another thread takes its thread's place, and
/// whoever waits for all of them does not wait for ever.
final class NodeWork: Sendable {
    private static let threads = 4
    /// Fewer nodes are not worth another thread.
    private static let share = 2048
    /// With those that hang.
    private static let mostThreads = 64
    /// Without one node done, so many microseconds make another thread join, and so many make the rest a lost one.
    private static let hangs: UInt64 = 50_000
    private static let isLost: UInt64 = 1_000_000

    private let count: Int
    private let body: @Sendable (Int) -> Void
    private let next = Atomic<Int>(0)
    private let done = Atomic<Int>(0)

    init(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
        self.count = count
        self.body = body
    }

    /// Returns when it is done for all, or for all but those at which it hangs: how many those are, and what could not be begun for them.
    func run() -> Int {
        guard count > 0 else { return 0 }
        var started = 0
        for _ in 0..<min(Self.threads, 1 + count / Self.share) { started += start() }
        var (seen, since, joined, pause) = (0, Self.microseconds, Self.microseconds, UInt32(20))
        while true {
            let now = Self.microseconds
            let finished = done.load(ordering: .acquiring)
            if finished == count { return 0 }
            if finished != seen {
                (seen, since, joined, pause) = (finished, now, now, 20)
            } else if now - since >= Self.isLost {
                return count - finished
            } else if now - joined >= Self.hangs, started < Self.mostThreads, next.load(ordering: .relaxed) < count {
                started += start()
                joined = now
            }
            usleep(pause)
            pause = min(pause * 2, 2000)
        }
    }

    private func start() -> Int {
        JoinedThread.detach { [self] in
            while true {
                let node = next.add(1, ordering: .relaxed).oldValue
                guard node < count else { return }
                body(node)
                done.add(1, ordering: .acquiringAndReleasing)
            }
        }
        return 1
    }

    private static var microseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000 + UInt64(time.tv_nsec) / 1000
    }
}
