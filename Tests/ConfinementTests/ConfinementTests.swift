import CLinux
import Confinement
import Foundation
import Synchronization
import TestSupport
import Testing

/// What is given up is tried on threads of their own: there is no way back.
@Suite struct ConfinementTests {
    @Test func refusedCallsFailAndOthersGoOn() {
        let seen = Mutex<(before: Int32, after: Int32, installed: Int32, read: Bool)>((0, 0, -1, false))
        runThread {
            let before = tryToMount()
            let installed = SyscallFilter.install(allThreads: false)
            let after = tryToMount()
            let data = FileManager.default.contents(atPath: "/proc/self/status")
            seen.withLock { $0 = (before, after, installed, data != nil) }
        }
        let (before, after, installed, read) = seen.withLock { $0 }
        #expect(installed == 0)
        // Without the filter the kernel looks at the arguments first (root), or at who asks.
        #expect(before == (geteuid() == 0 ? ENOENT : EPERM))
        #expect(after == EPERM)
        #expect(read)
    }

    @Test func otherThreadsAreNotConcerned() throws {
        try #require(geteuid() == 0, "needs root")
        runThread { _ = SyscallFilter.install(allThreads: false) }
        #expect(tryToMount() == ENOENT)
    }

    @Test func capabilitiesAreGivenUp() throws {
        try #require(geteuid() == 0, "needs root")
        let before = Capabilities.ofThread
        let seen = Mutex<(restricted: Bool, effective: Capabilities, permitted: Capabilities, clock: Int32)>(
            (false, [], [], 0))
        runThread {
            let restricted = Capabilities.restrict(to: [.chown, .fowner])
            let left = Capabilities.ofThread
            // CAP_SYS_NICE is gone.
            let failed = linux_set_thread_nice(-5) == 0 ? 0 : linux_get_errno()
            seen.withLock { $0 = (restricted, left.effective, left.permitted, failed) }
        }
        let after = seen.withLock { $0 }
        #expect(after.restricted)
        #expect(after.effective == before.permitted.intersection([.chown, .fowner]))
        #expect(after.permitted == after.effective)
        #expect(after.clock == EACCES)
        #expect(Capabilities.ofThread == before)
    }
}

/// mount(2) of nothing on nothing; its errno.
private func tryToMount() -> Int32 {
    mount("none", "/nonexistent", "tmpfs", 0, nil) == 0 ? 0 : linux_get_errno()
}
