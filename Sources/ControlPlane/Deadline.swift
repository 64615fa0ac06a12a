import CLinux
import Storage
import Synchronization

/// Runs something that the kernel may keep from returning, and waits for it only so long.
package enum Deadline {
    /// What `body` gave, or `nil` when `seconds` passed before: it goes on by itself then, and `late` gets what it gives in the end.
    ///
    /// Where no thread can be had for it, it is not run; one that `mustRun` runs here, however long that takes.
    package static func run<R: Sendable>(
        seconds: Double, mustRun: Bool = false, late: @escaping @Sendable (R) -> Void = { _ in },
        _ body: @escaping @Sendable () -> R
    ) -> R? {
        let box = Mailbox<R>()
        let isDecided = Decision()
        let isRunning = PlainThread.detach {
            let result = body()
            // A path that it went by, say.
            linux_wipe_stack(Int(LINUX_STACK_USED))
            if isDecided.take() { box.post(result) } else { late(result) }
        }
        guard isRunning else { return mustRun ? body() : nil }
        if let result = box.wait(seconds: seconds) { return result }
        // Whoever comes second has lost: either the result is on its way, or it is late.
        return isDecided.take() ? nil : box.wait(seconds: .infinity)
    }

    private final class Decision: Sendable {
        private let taken = Atomic<Bool>(false)
        /// True for the first caller.
        func take() -> Bool { !taken.exchange(true, ordering: .acquiringAndReleasing) }
    }
}
