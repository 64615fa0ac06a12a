import Glibc

/// What a thread does while all slots are taken: a holder keeps one for microseconds, so give up the processor once.
enum SpinHint {
    static func yield() { sched_yield() }
}
