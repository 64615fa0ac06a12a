import CLinux
import Synchronization

/// The calls that the lower storage can fail; the names are the system calls'.
package enum LowerCall: String, Sendable, CaseIterable {
    case openat, pread, pwrite, ftruncate, fstat, mkdirat, unlinkat, renameat2, linkat, symlinkat, readlinkat, mknodat
    case fchmodat, fchownat, utimensat, fsync, fdatasync, fallocate, lseek, getdents64, getxattr, setxattr, listxattr
    case removexattr, statvfs, syncfs
}

/// The seam through which tests make a thread's Nth lower call fail. Costs one relaxed load where it is not armed.
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
        var fault: Fault?
        var meanwhile: (@Sendable () -> Void)?
        var repeats: Bool
        var seen = 0
    }

    private static let armed = Atomic<Int>(0)
    // By thread: tests that run side by side do not meet each other's faults.
    private static let plans = Mutex<[UInt: Plan]>([:])

    /// Makes the `nth` call (from 1) among `calls` on this thread fail; with `repeats`, all after it too.
    package static func arm(nth: Int, of calls: Set<LowerCall>, fault: Fault, repeats: Bool = false) {
        plans.withLock { plans in
            plans[thread] = Plan(countdown: nth, calls: calls, fault: fault, repeats: repeats)
            armed.store(plans.count, ordering: .releasing)
        }
    }

    /// Does something before the `nth` call (from 1) among `calls` on this thread, which then goes on: what comes between is certain.
    package static func arm(nth: Int, of calls: Set<LowerCall>, meanwhile: @escaping @Sendable () -> Void) {
        plans.withLock { plans in
            plans[thread] = Plan(countdown: nth, calls: calls, meanwhile: meanwhile, repeats: false)
            armed.store(plans.count, ordering: .releasing)
        }
    }

    /// Back to normal on this thread. Returns how many matching calls were seen.
    @discardableResult
    package static func disarm() -> Int {
        plans.withLock { plans in
            let seen = plans.removeValue(forKey: thread)?.seen ?? 0
            armed.store(plans.count, ordering: .releasing)
            return seen
        }
    }

    private static var thread: UInt { UInt(pthread_self()) }

    /// Throws the planned errno, or says that the transfer is to be short.
    @inline(__always)
    static func check(_ call: LowerCall) throws(Errno) -> Bool {
        guard armed.load(ordering: .relaxed) > 0 else { return false }
        return try fire(call)
    }

    @inline(never)
    private static func fire(_ call: LowerCall) throws(Errno) -> Bool {
        let due: Plan? = plans.withLock { plans in
            guard var plan = plans[thread], plan.calls.contains(call) else { return nil }
            plan.seen += 1
            plan.countdown -= 1
            plans[thread] = plan
            return plan.countdown == 0 || (plan.repeats && plan.countdown < 0) ? plan : nil
        }
        due?.meanwhile?()
        switch due?.fault {
        case .errno(let errno): throw errno
        case .short: return true
        case nil: return false
        }
    }
}
