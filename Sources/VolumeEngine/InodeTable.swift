import Storage
import Synchronization

/// All inodes by lower inode number, in shards.
///
/// Lock order: a shard's lock is a leaf. An inode is in the table while it has references and a name; it lives, in or out of
/// the table, until its references are gone.
final class InodeTable: Sendable {
    private static let shardCount = 64

    private final class Shard: Sendable {
        let inodes = Mutex<[InodeKey: Inode]>([:])
        // Inodes that have lost their last name and are still used, by generation. Taken within `inodes`.
        let nameless = Mutex<[UInt64: Inode]>([:])
    }

    private let shards: [Shard] = (0..<shardCount).map { _ in Shard() }
    private let generations = Atomic<UInt64>(1)
    let nodes: NodeNumbers

    init(sharedHighest: SharedWord?) { nodes = NodeNumbers(sharedHighest: sharedHighest) }

    private func shard(_ key: InodeKey) -> Shard {
        shards[Int(truncatingIfNeeded: (key.number &* 0x9E37_79B9_7F4A_7C15) >> 58)]
    }

    /// The inode for `key`, with one more reference; made by `make` if it is new.
    func acquire(_ key: InodeKey, make: (InodeIdentity) -> Inode) -> (inode: Inode, isNew: Bool) {
        shard(key).inodes.withLock { inodes in
            if let inode = inodes[key] {
                inode.references.add(1, ordering: .relaxed)
                return (inode, false)
            }
            let generation = generations.add(1, ordering: .relaxed).newValue
            let inode = make(InodeIdentity(generation: generation, node: nodes.reserve()))
            // The number that the kernel holds of it keeps it.
            nodes.set(inode.node, to: Unmanaged.passRetained(inode))
            inodes[key] = inode
            return (inode, true)
        }
    }

    /// The inode for `key` if what the table has satisfies `isSame`; otherwise that one was another object, which is gone and whose
    /// number was given to a new one: a sweep saw it while a program removed it. One more reference, as `acquire`.
    func acquire(
        _ key: InodeKey, where isSame: (Inode) -> Bool, make: (InodeIdentity) -> Inode
    ) -> (inode: Inode, isNew: Bool) {
        while true {
            let (inode, isNew) = acquire(key, make: make)
            if isNew || isSame(inode) { return (inode, isNew) }
            detach(inode)
            release(inode)
        }
    }

    /// The inode for `key`, with one more reference, if it is known.
    func find(_ key: InodeKey) -> Inode? {
        shard(key).inodes.withLock { inodes in
            let inode = inodes[key]
            inode?.references.add(1, ordering: .relaxed)
            return inode
        }
    }

    /// One more reference to an inode that has one already, and so cannot go meanwhile: takes no lock.
    func retain(_ inode: Inode) { inode.references.add(1, ordering: .relaxed) }

    /// Gives back `count` references; the last one drops the inode, and with it its reference to its parent.
    func release(_ inode: Inode, count: Int = 1) {
        var next: Inode? = inode
        var count = count
        while let current = next {
            let gone = shard(current.key).inodes.withLock { inodes in
                let left = current.references.subtract(count, ordering: .acquiringAndReleasing).newValue
                guard left == 0 else { return false }
                if inodes[current.key] === current {
                    inodes[current.key] = nil
                    Self.shrink(&inodes)
                } else {
                    shard(current.key).nameless.withLock { $0[current.generation] = nil }
                }
                return true
            }
            guard gone else { return }
            next = current.state.withLock { state in
                let parent = state.location?.parent
                state.location = nil
                state.handle = nil
                state.pinned = nil
                state.keptPin = nil
                state.treeFile = nil
                return parent
            }
            count = 1
            nodes.release(current.node)
        }
    }

    /// Takes an inode whose last name is gone out of the table: its number may be used again by the lower storage.
    func detach(_ inode: Inode) {
        shard(inode.key).inodes.withLock { inodes in
            guard inodes[inode.key] === inode else { return }
            inodes[inode.key] = nil
            shard(inode.key).nameless.withLock { $0[inode.generation] = inode }
        }
    }

    /// Whether an inode has a name still, as far as this mount knows.
    func holds(_ inode: Inode) -> Bool { shard(inode.key).inodes.withLock { $0[inode.key] === inode } }

    /// Inodes in the table.
    var count: Int { shards.reduce(0) { $0 + $1.inodes.withLock { $0.count } } }

    /// A snapshot of all inodes, those without a name included, each with one more reference.
    func retainAll() -> [Inode] {
        shards.flatMap { shard in
            shard.inodes.withLock { inodes in
                let all = Array(inodes.values) + shard.nameless.withLock { Array($0.values) }
                for inode in all { inode.references.add(1, ordering: .relaxed) }
                return all
            }
        }
    }

    /// A dictionary keeps its storage when it empties: build it anew once it is mostly air.
    private static func shrink(_ inodes: inout [InodeKey: Inode]) {
        if inodes.capacity > 256, inodes.count < inodes.capacity / 8 {
            var smaller: [InodeKey: Inode] = [:]
            smaller.reserveCapacity(inodes.count * 2)
            for (key, inode) in inodes { smaller[key] = inode }
            inodes = smaller
        }
    }
}
