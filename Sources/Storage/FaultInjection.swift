import Synchronization

/// The calls that the lower storage can fail; the names are the system calls'.
package enum LowerCall: String, Sendable, CaseIterable {
    case openat, pread, pwrite, ftruncate, fstat, mkdirat, unlinkat, renameat2, linkat, symlinkat, readlinkat, mknodat
    case fchmodat, fchownat, utimensat, fsync, fdatasync, fallocate, lseek, getdents64, getxattr, setxattr, listxattr
    case removexattr, statvfs, syncfs
}

/// The seam through which tests make the Nth lower call fail. Costs one relaxed load where it is not armed.
package enum FaultInjection {
    /// What a failing call does instead.
    package enum Fault: Sendable, Equatable {
        case errno(Errno)
        /// Transfers half of what was asked for (pread, pwrite).
        case short
    }

    private struct Plan {
        var countdown: Int
        var calls: Set<LowerCall>
        var fault: Fault
        var repeats: Bool
        var seen = 0
    }

    private static let armed = Atomic<Bool>(false)
    private static let plan = Mutex<Plan?>(nil)

    /// Makes the `nth` call (from 1) among `calls` fail; with `repeats`, all after it too.
    package static func arm(nth: Int, of calls: Set<LowerCall>, fault: Fault, repeats: Bool = false) {
        plan.withLock { $0 = Plan(countdown: nth, calls: calls, fault: fault, repeats: repeats) }
        armed.store(true, ordering: .releasing)
    }

    /// Back to normal. Returns how many matching calls were seen.
    @discardableResult
    package static func disarm() -> Int {
        armed.store(false, ordering: .releasing)
        return plan.withLock { plan in
            defer { plan = nil }
            return plan?.seen ?? 0
        }
    }

    /// Throws the planned errno, or says that the transfer is to be short.
    @inline(__always)
    static func check(_ call: LowerCall) throws(Errno) -> Bool {
        guard armed.load(ordering: .relaxed) else { return false }
        return try fire(call)
    }

    @inline(never)
    private static func fire(_ call: LowerCall) throws(Errno) -> Bool {
        let fault: Fault? = plan.withLock { plan in
            guard plan?.calls.contains(call) == true else { return nil }
            plan?.seen += 1
            plan?.countdown -= 1
            guard let current = plan, current.countdown == 0 || (current.repeats && current.countdown < 0) else {
                return nil
            }
            return current.fault
        }
        switch fault {
        case .errno(let errno): throw errno
        case .short: return true
        case nil: return false
        }
    }
}
