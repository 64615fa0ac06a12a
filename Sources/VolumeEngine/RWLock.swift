import CLinux
import Glibc

/// A readers-writer lock that lets a waiting writer go first.
final class RWLock: @unchecked Sendable {
    // The lock lives at one address for its whole life, and is only used through pthread calls.
    private let lock: UnsafeMutablePointer<pthread_rwlock_t>

    init() {
        lock = .allocate(capacity: 1)
        var attributes = pthread_rwlockattr_t()
        pthread_rwlockattr_init(&attributes)
        pthread_rwlockattr_setkind_np(&attributes, Int32(PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP))
        pthread_rwlock_init(lock, &attributes)
        pthread_rwlockattr_destroy(&attributes)
    }

    @inline(__always)
    func reading<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        pthread_rwlock_rdlock(lock)
        defer { pthread_rwlock_unlock(lock) }
        return try body()
    }

    @inline(__always)
    func writing<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        if pthread_rwlock_trywrlock(lock) != 0 { waitToWrite() }
        defer { pthread_rwlock_unlock(lock) }
        return try body()
    }

    /// Most holders are done within microseconds, and being put to sleep and woken costs more than that: looks again for a while first.
    private func waitToWrite() {
        for _ in 0..<Self.looks {
            for _ in 0..<32 { linux_pause() }
            if pthread_rwlock_trywrlock(lock) == 0 { return }
        }
        pthread_rwlock_wrlock(lock)
    }

    /// About 20 microseconds.
    private static let looks = 20

    deinit {
        pthread_rwlock_destroy(lock)
        lock.deallocate()
    }
}
