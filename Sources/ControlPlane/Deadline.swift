import Synchronization

/// Runs something that the kernel may keep from returning, and waits for it only so long.
enum Deadline {
    /// What `body` gave, or `nil` when `seconds` passed before: it goes on by itself then, and its result is dropped.
    static func run<R: Sendable>(seconds: Double, _ body: @escaping @Sendable () -> R) -> R? {
        let box = Mailbox<R>()
        Thread.detach { box.post(body()) }
        return box.wait(seconds: seconds)
    }
}
