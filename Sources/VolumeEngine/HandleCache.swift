import Storage
import Synchronization

/// Bounds the directory handles that inodes keep, by a clock: a handle that was used since the hand last passed stays.
final class HandleCache: Sendable {
    private let capacity: Int
    // Order: this lock, then an inode's state lock.
    private let ring = Mutex<(inodes: [Inode], hand: Int)>(([], 0))

    init(capacity: Int) { self.capacity = capacity }

    /// Notes that `inode` got a handle, and takes one from another inode, whose place it gets, if there are too many.
    func added(_ inode: Inode) {
        ring.withLock { ring in
            guard ring.inodes.count >= capacity else { return ring.inodes.append(inode) }
            // Enough steps to find an idle one, with an end: give up whose turn it is otherwise.
            for step in 0..<64 {
                let place = ring.hand
                ring.hand = place + 1 == ring.inodes.count ? 0 : place + 1
                let isFree = ring.inodes[place].state.withLock { state in
                    guard state.handle != nil, state.recentlyUsed, step < 63, ring.inodes[place] !== inode else {
                        if ring.inodes[place] !== inode { state.handle = nil }
                        return true
                    }
                    state.recentlyUsed = false
                    return false
                }
                if isFree { return ring.inodes[place] = inode }
            }
        }
    }
}
