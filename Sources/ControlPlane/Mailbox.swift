import CLinux

/// Messages for one thread, which waits for them with a deadline.
final class Mailbox<Message: Sendable>: @unchecked Sendable {
    // `waiting` is guarded by `mutex`; both live at one address for the box's whole life.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let arrived: UnsafeMutablePointer<pthread_cond_t>
    private var waiting: [Message] = []

    init() {
        mutex = .allocate(capacity: 1)
        arrived = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(arrived, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    func post(_ message: Message) {
        pthread_mutex_lock(mutex)
        waiting.append(message)
        pthread_cond_signal(arrived)
        pthread_mutex_unlock(mutex)
    }

    /// The next message; `nil` when `seconds` have passed.
    func wait(seconds: Double) -> Message? {
        var until = timespec()
        clock_gettime(CLOCK_MONOTONIC, &until)
        let nanoseconds = until.tv_nsec + Int(max(0, min(seconds, 86_400)) * 1e9)
        until.tv_sec += nanoseconds / 1_000_000_000
        until.tv_nsec = nanoseconds % 1_000_000_000
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while waiting.isEmpty {
            if pthread_cond_timedwait(arrived, mutex, &until) == ETIMEDOUT { break }
        }
        return waiting.isEmpty ? nil : waiting.removeFirst()
    }

    deinit {
        pthread_cond_destroy(arrived)
        pthread_mutex_destroy(mutex)
        arrived.deallocate()
        mutex.deallocate()
    }
}

/// Seconds since the machine was started, time asleep included.
package enum BootClock {
    package static var now: Double {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
