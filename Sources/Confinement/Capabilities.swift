import CLinux

/// Capabilities of a thread (capabilities(7)), as bits.
package struct Capabilities: OptionSet, Sendable, Equatable {
    package var rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    private init(_ number: Int32) { rawValue = 1 << UInt64(number) }

    package static let chown = Capabilities(CAP_CHOWN)
    package static let dacOverride = Capabilities(CAP_DAC_OVERRIDE)
    package static let dacReadSearch = Capabilities(CAP_DAC_READ_SEARCH)
    package static let fowner = Capabilities(CAP_FOWNER)
    package static let fsetid = Capabilities(CAP_FSETID)
    package static let ipcLock = Capabilities(CAP_IPC_LOCK)
    package static let mknod = Capabilities(CAP_MKNOD)
    package static let sysAdmin = Capabilities(CAP_SYS_ADMIN)
    package static let sysNice = Capabilities(CAP_SYS_NICE)

    /// What a mount that serves all users needs: to act on files of every owner (`chown` to `fsetid`), to make device nodes, to lock
    /// memory, to put a revocation before other work (`sysNice`), to unmount and to keep trusted.* attributes (`sysAdmin`).
    ///
    /// Not CAP_SYS_RESOURCE: with it the lower file system would not hold anybody to his quota.
    package static let ofDaemon: Capabilities = [
        .chown, .dacOverride, .dacReadSearch, .fowner, .fsetid, .ipcLock, .mknod, .sysAdmin, .sysNice,
    ]

    /// Those in effect on the calling thread, and those that it may have in effect.
    package static var ofThread: (effective: Capabilities, permitted: Capabilities) {
        var all: (effective: Capabilities, permitted: Capabilities) = ([], [])
        for word in 0..<2 {
            var effective: UInt32 = 0
            var permitted: UInt32 = 0
            guard linux_capabilities(Int32(word), &effective, &permitted) == 0 else { continue }
            all.effective.formUnion(Capabilities(rawValue: UInt64(effective) << UInt64(32 * word)))
            all.permitted.formUnion(Capabilities(rawValue: UInt64(permitted) << UInt64(32 * word)))
        }
        return all
    }

    /// Gives up all others, for the calling thread, the threads that it starts, and programs that they execute. False where the
    /// kernel refused.
    package static func restrict(to kept: Capabilities) -> Bool {
        // Where CAP_SETPCAP is not there, a program started later gets no more than the kernel's rules give it: no_new_privs.
        var number: UInt = 0
        while linux_prctl(PR_CAPBSET_READ, number) >= 0 {
            if kept.rawValue & 1 << UInt64(number) == 0 { _ = linux_prctl(PR_CAPBSET_DROP, number) }
            number += 1
        }
        let left = kept.intersection(ofThread.permitted)
        return linux_set_capabilities(UInt32(truncatingIfNeeded: left.rawValue), UInt32(left.rawValue >> 32)) == 0
    }
}
