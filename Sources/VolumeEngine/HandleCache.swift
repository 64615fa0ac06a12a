import Storage
import Synchronization

/// Bounds the directory handles that inodes keep, by a clock: a handle that was used since the hand last passed stays.
final class HandleCache: Sendable {
    private let capacity: Int
    // Order: this lock, then an inode's state lock.
    private let ring = Mutex<[Inode]>([])

    init(capacity: Int) { self.capacity = capacity }

    /// Notes that `inode` got a handle, and takes one from another inode if there are too many.
    func added(_ inode: Inode) {
        ring.withLock { ring in
            ring.append(inode)
            guard ring.count > capacity else { return }
            // Enough steps to find an idle one, with an end: give up the oldest otherwise.
            for step in 0..<64 where !ring.isEmpty {
                let oldest = ring.removeFirst()
                let keep = oldest.state.withLock { state in
                    guard state.handle != nil else { return false }
                    guard state.recentlyUsed, step < 63, oldest !== inode else {
                        state.handle = nil
                        return false
                    }
                    state.recentlyUsed = false
                    return true
                }
                if !keep { return }
                ring.append(oldest)
            }
        }
    }
}
