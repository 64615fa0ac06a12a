import CLinux
import Confinement

/// What a process with keys does first: no core dumps, no ptrace by equals, memory that does not reach swap, no SIGPIPE.
enum ProcessHardening {
    /// What could not be had, as sentences for the log.
    @discardableResult
    static func apply() -> [String] {
        var warnings: [String] = []
        linux_ignore_sigpipe()
        // Swift's backtracer prints registers and memory of a crashed process: keys could be among them.
        for fatal in [SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGBUS, SIGSEGV, SIGQUIT] { linux_default_signal(fatal) }
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        linux_set_core_limit(&none)
        if linux_prctl(PR_SET_DUMPABLE, 0) != 0 { warnings.append("the process could not be made non-dumpable") }
        if !lockMemory() {
            warnings.append("memory is locked only where keys lie (RLIMIT_MEMLOCK): cipher contexts could reach swap")
        }
        return warnings
    }

    /// Gives up what root's daemon does not need, before it has threads. A plain user's has nothing to give up.
    static func dropCapabilities() -> [String] {
        guard geteuid() == 0 else { return [] }
        let own = score()
        // With this as the least that it ever was, the guardian may have it again without CAP_SYS_RESOURCE.
        let isAllowed = setScore("-1000")
        defer { if isAllowed { _ = setScore(own) } }
        guard !Capabilities.restrict(to: .ofDaemon) else { return [] }
        return ["capabilities could not be given up: \(String(cString: strerror(linux_get_errno())))"]
    }

    private static let scoreFile = "/proc/self/oom_score_adj"

    private static func score() -> String {
        var bytes = [UInt8](repeating: 0, count: 16)
        let file = linux_open(scoreFile, O_RDONLY | O_CLOEXEC, 0)
        guard file >= 0 else { return "0" }
        defer { close(file) }
        let count = read(file, &bytes, bytes.count)
        return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : "0"
    }

    private static func setScore(_ value: String) -> Bool {
        let file = linux_open(scoreFile, O_WRONLY | O_CLOEXEC, 0)
        guard file >= 0 else { return false }
        defer { close(file) }
        return write(file, value, value.utf8.count) == value.utf8.count
    }

    /// Refuses this process, from now on, the system calls that it has no use for once it has mounted.
    ///
    /// Not a plain user's: a filter takes no_new_privs, and with that fusermount3, which is set-user-ID root, could not take the mount away.
    static func refuseSystemCalls() -> [String] {
        guard geteuid() == 0 else { return [] }
        let failed = SyscallFilter.install()
        return failed == 0 ? [] : ["no system calls are refused (seccomp): \(String(cString: strerror(failed)))"]
    }

    /// All memory, now and later (pages that are touched; MCL_ONFAULT), where the limit allows as much as the process may come to need.
    private static func lockMemory() -> Bool {
        var limit = rlimit()
        linux_memlock_limit(&limit)
        guard geteuid() == 0 || limit.rlim_cur >= 1 << 30 else { return false }
        return linux_lock_all_memory() == 0
    }

    /// As many descriptors as the system allows.
    static func raiseDescriptorLimit() -> Int {
        var limit = rlimit()
        linux_nofile_limit(&limit)
        limit.rlim_cur = limit.rlim_max
        linux_set_nofile_limit(&limit)
        linux_nofile_limit(&limit)
        return Int(min(limit.rlim_cur, 1 << 20))
    }
}
