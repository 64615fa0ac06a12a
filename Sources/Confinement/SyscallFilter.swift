import CLinux
import CSeccomp

/// System calls that a daemon has no use for once it serves, and whoever gets to run code in it has: refused with EPERM.
///
/// A list of what is refused, not of what is allowed: PKCS#11 modules of HSM makers run in this process, and nobody knows what each
/// of them calls.
package enum SyscallFilter {
    /// Mounts and namespaces (umount2 stays: the daemon takes its own mount away), other processes' memory, the kernel's modules
    /// and clocks, keys of the kernel, raw devices.
    static let refused = [
        "mount", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick",
        "mount_setattr", "pivot_root", "chroot", "setns", "ptrace", "process_vm_readv", "process_vm_writev",
        "process_madvise", "kcmp", "pidfd_getfd", "init_module", "finit_module", "delete_module",
        "create_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "bpf",
        "perf_event_open", "userfaultfd", "add_key", "request_key", "keyctl", "acct", "quotactl", "quotactl_fd",
        "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime", "sethostname", "setdomainname",
        "iopl", "ioperm", "modify_ldt", "syslog", "vhangup", "lookup_dcookie", "nfsservctl",
        "open_by_handle_at", "uselib", "_sysctl",
    ]

    /// Refuses them from now on, for all threads of the process (`allThreads`) or for the calling one, and for programs that are
    /// executed. There is no way back. With it goes no_new_privs: set-user-ID programs that are executed stay what the caller is.
    /// Returns 0, or an errno: EINVAL where the kernel has no seccomp.
    package static func install(allThreads: Bool = true) -> Int32 {
        // SCMP_ACT_ALLOW and SCMP_ACT_ERRNO of <seccomp.h>, a macro with an argument.
        guard let filter = seccomp_init(0x7fff_0000) else { return ENOMEM }
        defer { seccomp_release(filter) }
        let refuse = 0x0005_0000 | UInt32(EPERM)
        // Calls by way of another architecture (32 bits on 64) would go past all rules.
        var failed = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, refuse)
        for name in refused where failed == 0 {
            let number = seccomp_syscall_resolve_name(name)
            // One that this architecture does not have.
            if number < 0 { continue }
            failed = seccomp_rule_add_array(filter, refuse, number, 0, nil)
        }
        if failed == 0 { failed = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, allThreads ? 1 : 0) }
        if failed == 0 { failed = seccomp_load(filter) }
        return -failed
    }
}
