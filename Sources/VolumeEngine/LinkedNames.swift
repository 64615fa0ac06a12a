import Synchronization

/// Links with several names that a sweep has found under an older metadata key, with the names. Bounded by their number alone.
final class LinkedNames: Sendable {
    struct Name {
        /// With a reference, given back by `take`'s caller.
        let directory: Inode
        let name: [CChar]
    }

    struct Group {
        let inode: Inode
        /// Names that the lower file system counts.
        var count: Int
        var names: [Name]
    }

    // Leaf lock.
    private let groups = Mutex<[InodeKey: Group]>([:])

    /// Keeps a name, with references to both inodes.
    func add(_ inode: Inode, count: Int, _ directory: Inode, _ name: [CChar], _ table: InodeTable) {
        groups.withLock { groups in
            table.retain(directory)
            if groups[inode.key] == nil {
                table.retain(inode)
                groups[inode.key] = Group(inode: inode, count: count, names: [])
            }
            groups[inode.key]?.count = count
            groups[inode.key]?.names.append(Name(directory: directory, name: name))
        }
    }

    func take() -> [Group] {
        groups.withLock { groups in
            defer { groups = [:] }
            return Array(groups.values)
        }
    }
}
