import CLinux

/// Puts what revokes before other work of the machine: programs that go on reading must not keep it from the processor.
/// Where the kernel does not allow it (a plain user's daemon) things go on as they are.
enum Urgency {
    /// Nine times the weight of others: the zones that stay open go on, too.
    private static let nice: Int32 = -10

    /// For the calling thread, and for those that it makes from now on.
    static func raiseThread() { _ = linux_set_thread_nice(nice) }

    /// Runs `body` with the daemon's session before others, where the kernel shares its time out among sessions first.
    static func beforeOtherSessions<R>(_ body: () -> R) -> R {
        let isRaised = setSession("\(nice)")
        defer { if isRaised { _ = setSession("0") } }
        return body()
    }

    private static func setSession(_ nice: String) -> Bool {
        let file = linux_open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC, 0)
        guard file >= 0 else { return false }
        defer { close(file) }
        return write(file, nice, nice.utf8.count) == nice.utf8.count
    }
}
