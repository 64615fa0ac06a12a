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

/// Threads that are waited for.
enum SweepThreads {
    private final class Body {
        let index: Int
        let run: @Sendable (Int) -> Void
        init(_ index: Int, _ run: @escaping @Sendable (Int) -> Void) {
            self.index = index
            self.run = run
        }
    }

    /// Runs `body` on `count` threads, the caller's among them, and returns when all are done. All signals are left to others.
    static func run(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
        var threads: [pthread_t] = []
        var all = sigset_t()
        var old = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, &old)
        for index in 1..<max(1, count) {
            var thread = pthread_t()
            let context = Unmanaged.passRetained(Body(index, body)).toOpaque()
            let failed = pthread_create(
                &thread, nil,
                { context in
                    if let context {
                        let body = Unmanaged<Body>.fromOpaque(context).takeRetainedValue()
                        body.run(body.index)
                    }
                    // The C library keeps the stack for the next thread.
                    linux_wipe_stack(Int(LINUX_STACK_USED))
                    return nil
                }, context)
            if failed == 0 { threads.append(thread) } else { Unmanaged<Body>.fromOpaque(context).release() }
        }
        pthread_sigmask(SIG_SETMASK, &old, nil)
        body(0)
        for thread in threads { pthread_join(thread, nil) }
    }
}
