import CLinux
import Glibc

/// Work for a sweep's threads, the newest first, so that a tree is walked in depth and little of it waits. `next` gives nothing
/// once nothing waits and nobody is at work who could add something.
final class SweepQueue<Item>: @unchecked Sendable {
    // `items`, `working` and `ended` are guarded by `lock`, which lives at one address.
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let changed: UnsafeMutablePointer<pthread_cond_t>
    private var items: [Item] = []
    private var working = 0
    private var ended = false

    init() {
        lock = .allocate(capacity: 1)
        changed = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
        pthread_cond_init(changed, nil)
    }

    /// False when `limit` items wait already: then the caller does it himself.
    func push(_ item: Item, limit: Int = .max) -> Bool {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        guard items.count < limit else { return false }
        items.append(item)
        pthread_cond_signal(changed)
        return true
    }

    /// The next item; the caller says `done` after it.
    func next() -> Item? {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        while items.isEmpty, working > 0, !ended { pthread_cond_wait(changed, lock) }
        guard !ended, let item = items.popLast() else {
            pthread_cond_broadcast(changed)
            return nil
        }
        working += 1
        return item
    }

    func done() {
        pthread_mutex_lock(lock)
        working -= 1
        if working == 0 { pthread_cond_broadcast(changed) }
        pthread_mutex_unlock(lock)
    }

    /// Nothing more is given out.
    func end() {
        pthread_mutex_lock(lock)
        ended = true
        items = []
        pthread_cond_broadcast(changed)
        pthread_mutex_unlock(lock)
    }

    deinit {
        pthread_cond_destroy(changed)
        pthread_mutex_destroy(lock)
        changed.deallocate()
        lock.deallocate()
    }
}
