import CLinux
import Synchronization

/// What several threads have still to do. It ends when nothing is left and nobody is at work who could add more.
final class WorkQueue<Item>: @unchecked Sendable {
    // All below are guarded by `mutex`; they lie on the heap, since a pthread object must not move.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let changed: UnsafeMutablePointer<pthread_cond_t>
    private var items: [Item]
    private var atWork = 0

    init(_ items: [Item]) {
        self.items = items
        mutex = .allocate(capacity: 1)
        changed = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(changed, nil)
    }

    deinit {
        pthread_cond_destroy(changed)
        pthread_mutex_destroy(mutex)
        changed.deallocate()
        mutex.deallocate()
    }

    private func locked<R>(_ body: () -> R) -> R {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body()
    }

    /// Adds an item, unless `limit` are waiting; false then.
    func add(_ item: Item, limit: Int = .max) -> Bool {
        locked {
            guard items.count < limit else { return false }
            items.append(item)
            pthread_cond_signal(changed)
            return true
        }
    }

    /// The newest item, so that the walk goes deep first and little waits; `nil` at the end. `done` follows each.
    func next() -> Item? {
        locked {
            while true {
                if let item = items.popLast() {
                    atWork += 1
                    return item
                }
                if atWork == 0 {
                    pthread_cond_broadcast(changed)
                    return nil
                }
                pthread_cond_wait(changed, mutex)
            }
        }
    }

    func done() {
        locked {
            atWork -= 1
            if atWork == 0, items.isEmpty { pthread_cond_broadcast(changed) }
        }
    }
}

/// Holds work to so many bytes a second, over all threads.
final class Pacer: Sendable {
    private let bytesPerSecond: UInt64
    private let start: UInt64
    private let done = Atomic<UInt64>(0)

    init(bytesPerSecond: UInt64) {
        self.bytesPerSecond = max(1, bytesPerSecond)
        start = Self.now
    }

    private static var now: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Waits as long as `bytes` more are too many, ten seconds at the most, while `goesOn` says so.
    func pass(_ bytes: Int, while goesOn: () -> Bool) {
        let total = done.add(UInt64(bytes), ordering: .relaxed).newValue
        let due = Double(total) / Double(bytesPerSecond)
        var left = min(due - Double(Self.now - start) / 1e9, 10)
        while left > 0, goesOn() {
            usleep(useconds_t(min(left, Self.step) * 1e6))
            left -= Self.step
        }
    }

    private static let step = 0.05
}
