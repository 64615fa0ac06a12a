import CLinux
import Glibc

/// A readers-writer lock that lets a waiting writer go first, for sections of microseconds.
///
/// Writers queue at a mutex, and only its holder at the lock. A mutex goes to whoever runs: a thread that has several requests for one file
/// does them one after the other. The lock alone hands over to the writer that waited longest, and each time that one has to be woken first.
final class RWLock: @unchecked Sendable {
    // They live at one address for their whole life, and are only used through pthread calls. The mutex comes before the lock.
    private let lock: UnsafeMutablePointer<pthread_rwlock_t>
    private let writers: UnsafeMutablePointer<pthread_mutex_t>

    init() {
        lock = .allocate(capacity: 1)
        writers = .allocate(capacity: 1)
        var attributes = pthread_rwlockattr_t()
        pthread_rwlockattr_init(&attributes)
        pthread_rwlockattr_setkind_np(&attributes, Int32(PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP))
        pthread_rwlock_init(lock, &attributes)
        pthread_rwlockattr_destroy(&attributes)
        pthread_mutex_init(writers, nil)
    }

    @inline(__always)
    func reading<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        if pthread_rwlock_tryrdlock(lock) != 0 { waitToRead() }
        defer { pthread_rwlock_unlock(lock) }
        return try body()
    }

    @inline(__always)
    func writing<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        pthread_mutex_lock(writers)
        if pthread_rwlock_trywrlock(lock) != 0 { waitToWrite() }
        defer {
            pthread_rwlock_unlock(lock)
            pthread_mutex_unlock(writers)
        }
        return try body()
    }

    /// `nil` where somebody has the lock.
    func writingIfAvailable<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R? {
        guard pthread_mutex_trylock(writers) == 0 else { return nil }
        defer { pthread_mutex_unlock(writers) }
        guard pthread_rwlock_trywrlock(lock) == 0 else { return nil }
        defer { pthread_rwlock_unlock(lock) }
        return try body()
    }

    // Most holders are done within microseconds, and being put to sleep and woken costs more than that: looks again for a while first.

    private func waitToRead() { if !isHad(pthread_rwlock_tryrdlock) { pthread_rwlock_rdlock(lock) } }

    private func waitToWrite() { if !isHad(pthread_rwlock_trywrlock) { pthread_rwlock_wrlock(lock) } }

    private func isHad(_ attempt: (UnsafeMutablePointer<pthread_rwlock_t>) -> Int32) -> Bool {
        for _ in 0..<Self.looks {
            for _ in 0..<32 { linux_pause() }
            if attempt(lock) == 0 { return true }
        }
        return false
    }

    /// About 20 microseconds.
    private static let looks = 20

    deinit {
        pthread_rwlock_destroy(lock)
        lock.deallocate()
        pthread_mutex_destroy(writers)
        writers.deallocate()
    }
}
