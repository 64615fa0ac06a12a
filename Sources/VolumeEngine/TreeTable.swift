import Storage
import Synchronization
import VolumeFormat

/// Page trees that are not stored as they are in memory, of files that are open and of files that are not (FORMAT §12).
final class TreeTable: Sendable {
    struct Item {
        /// With one reference, until the tree is stored.
        let inode: Inode
        let tree: PageTree
    }

    /// `.lethefs/trees`: a file for each file of more than two pages.
    let directory: Descriptor
    /// The lower root, opened for this alone: a flush that failed is told once to each descriptor.
    let flushed: Descriptor
    /// One at a time stores trees. Outermost: taken before a file's gate, over flushes of the lower storage.
    let storing = Mutex<Void>(())
    let budget = LeafBudget()
    /// An unmount waits: what takes long is left for another time.
    let isEnding = Atomic<Bool>(false)
    /// Held by whoever looks at all pages of files; nothing else is taken before it.
    let scanning = Mutex<Void>(())
    // Leaf lock.
    private let items = Mutex<[InodeKey: Item]>([:])

    /// So many files are stored before their time.
    private static let manyFiles = 16_384

    init(directory: Descriptor, flushed: Descriptor) {
        self.directory = directory
        self.flushed = flushed
    }

    /// A tree has changed.
    func note(_ inode: Inode, _ tree: PageTree, in table: InodeTable) {
        guard tree.noteChange() else { return }
        // Whoever changes it has a reference.
        table.retain(inode)
        let replaced = items.withLock { $0.updateValue(Item(inode: inode, tree: tree), forKey: inode.key) }
        if let replaced { table.release(replaced.inode) }
    }

    /// The tree of a file, if it is not stored.
    func find(_ key: InodeKey, _ file: UniqueID) -> PageTree? {
        guard let tree = items.withLock({ $0[key]?.tree }), tree.file == file else { return nil }
        return tree
    }

    /// The file has lost its last name. Its tree, if it was not stored.
    func leave(_ key: InodeKey) -> Item? {
        let item = items.withLock { $0[key] }
        item?.tree.leave()
        return item
    }

    /// The same that is in the table, if it is there.
    func item(of tree: PageTree, _ key: InodeKey) -> Item? {
        items.withLock { items in items[key].flatMap { $0.tree === tree ? $0 : nil } }
    }

    /// A tree was stored as it is. The caller keeps writers out.
    func drop(_ item: Item, in table: InodeTable) {
        item.tree.noteStored()
        let isThere = items.withLock { items in
            guard items[item.inode.key]?.tree === item.tree else { return false }
            items[item.inode.key] = nil
            return true
        }
        if isThere { table.release(item.inode) }
    }

    /// The mount is over: what could not be stored stays as it is.
    func clear(in table: InodeTable) {
        let left = items.withLock { items in
            defer { items = [:] }
            return items.values
        }
        for item in left { table.release(item.inode) }
    }

    var all: [Item] { items.withLock { Array($0.values) } }
    var isEmpty: Bool { items.withLock { $0.isEmpty } }
    var hasMany: Bool { items.withLock { !$0.isEmpty && (budget.isExceeded || $0.count > Self.manyFiles) } }
}
