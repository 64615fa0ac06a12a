import Synchronization

/// Objects that got another place while a sweep walks the tree: a walk may have passed the new one before, and come to the old
/// one after. Each sweep has a list of its own, and looks at what is in it once more.
final class MoveLog: Sendable {
    /// What moved since the sweep began.
    final class List: Sendable {
        /// More than this, and the tree is walked again instead.
        fileprivate static let limit = 1 << 16

        fileprivate struct State {
            var inodes: [ObjectIdentifier: Inode] = [:]
            var missed = false
        }

        // Leaf lock.
        fileprivate let state = Mutex(State())

        /// What moved since the last call, each once, with a reference for the caller to release; `missed` when that is not all.
        func take() -> (inodes: [Inode], missed: Bool) {
            state.withLock { state in
                defer { state = State() }
                return (Array(state.inodes.values), state.missed)
            }
        }
    }

    private let listening = Atomic<Int>(0)
    // Taken before a list's lock and a table shard's.
    private let lists = Mutex<[List]>([])

    func begin() -> List {
        let list = List()
        lists.withLock { $0.append(list) }
        listening.add(1, ordering: .acquiringAndReleasing)
        return list
    }

    /// Ends what `begin` began.
    func end(_ list: List, _ table: InodeTable) {
        lists.withLock { $0.removeAll { $0 === list } }
        listening.subtract(1, ordering: .acquiringAndReleasing)
        for inode in list.take().inodes { table.release(inode) }
    }

    /// Costs one load where no sweep is under way.
    @inline(__always)
    func note(_ key: InodeKey, in table: InodeTable) {
        if listening.load(ordering: .acquiring) > 0 { add(key, table) }
    }

    @inline(never)
    private func add(_ key: InodeKey, _ table: InodeTable) {
        lists.withLock { lists in
            for list in lists {
                list.state.withLock { state in
                    // What is not known cannot be found again by its number alone.
                    guard state.inodes.count < List.limit, let inode = table.find(key) else {
                        state.missed = true
                        return
                    }
                    if state.inodes.updateValue(inode, forKey: ObjectIdentifier(inode)) != nil { table.release(inode) }
                }
            }
        }
    }
}
