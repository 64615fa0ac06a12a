import Synchronization
import VolumeFormat

/// Which version of each page a file has: the lines of its page tree that are in memory (FORMAT §12). No input or output here.
///
/// What a program writes changes the lowest nodes in memory at once, so that this mount notices any other version; `Volume.storeTrees`
/// brings them to the lower storage from time to time, once the pages are durable. What lies between is known after a crash by its
/// session alone.
///
/// Lock order: `state` is a leaf. Lines change under the content's lock held alone, or, when a page after a crash is listed as it was
/// found, while writers are kept out.
final class PageTree: Sendable {
    let file: UniqueID

    struct Leaf {
        /// Lines of up to `TreeGeometry.arity` pages; what is missing at the end is none.
        var entries: [TreeEntry] = []
        /// Differs from what is stored.
        var isDirty = false
        /// Was taken to be stored, and the header does not know it yet.
        var isBeingStored = false
        var isPinned: Bool { isDirty || isBeingStored }

        subscript(slot: Int) -> TreeEntry {
            get { slot < entries.count ? entries[slot] : .none }
            set {
                while entries.count <= slot {
                    if newValue.isNone { return }
                    entries.append(.none)
                }
                entries[slot] = newValue
                while let last = entries.last, last.isNone { entries.removeLast() }
            }
        }
    }

    struct State {
        /// What the header says, or is about to say.
        var root: TreeRoot
        /// Of stored nodes only lines of pages below it count: the file was cut there.
        var storedPages = UInt64.max
        var leaves: [UInt64: Leaf] = [:]
        /// Lowest nodes that may be dropped, in no order; some may be gone, or be needed again.
        var spare: [UInt64] = []
        /// Nodes above the lowest, as `root` has them.
        var uppers: [NodeID: [TreeEntry]] = [:]
        /// A crash, or a write that failed, may have left pages that are not listed.
        var isRagged: Bool
        /// Writes that failed.
        var failures: UInt64 = 0
        /// How far pages were looked at, and how many writes had failed when that began.
        var scan = (pages: UInt64(0), failures: UInt64(0), isDone: false)
        /// The lower storage could not be flushed: what was written before may be lost, and is not listed in this mount any more.
        var isStuck = false
        /// Where the file was cut since nodes were taken to be stored.
        var cutSince = UInt64.max
        /// The header that was stored last does not say what `root` says.
        var headerIsBehind = false
        /// The last name is gone: it is stored no more.
        var isGone = false
        /// Lowest nodes that the budget knows of.
        var counted = 0
    }

    struct NodeID: Hashable {
        var level: Int
        var index: UInt64
    }

    let state: Mutex<State>
    /// What new pages are sealed with. Changed under the content's lock held alone.
    let sealing: Atomic<UInt64>
    /// It is in the volume's table.
    private let isNoted = Atomic<Bool>(false)

    /// Lowest nodes that are kept though they are stored: as long as all files together keep few, and otherwise.
    private static let (keptLeaves, keptScarcely) = (1024, 16)
    /// The same for the nodes above them.
    private static let keptUppers = 256
    private let budget: LeafBudget

    /// Of a file that was made just now.
    init(creating file: UniqueID, _ budget: LeafBudget) {
        self.file = file
        self.budget = budget
        state = Mutex(State(root: TreeRoot(floor: 1, top: 1), isRagged: false))
        sealing = Atomic(2)
    }

    /// Of a file of so many pages whose header was read. `isExplained`: it may be as a crash left it.
    init(_ root: TreeRoot, of file: UniqueID, pages: UInt64, isExplained: Bool, _ budget: LeafBudget) {
        self.file = file
        self.budget = budget
        let isRagged = isExplained || root.top > root.floor
        var state = State(root: root, isRagged: isRagged)
        if root.depth == 0 { state.leaves[0] = Leaf(entries: [root.entries.0, root.entries.1]) }
        // It may have been cut since.
        if isRagged {
            state.storedPages = pages
            if pages < 2, let leaf = state.leaves[0] {
                state.leaves[0] = Leaf(entries: Array(leaf.entries.prefix(Int(pages))))
            }
        }
        self.state = Mutex(state)
        // Two more may have been used than the stored header says.
        sealing = Atomic(isRagged ? root.top + 3 : root.floor + 1)
    }

    deinit { budget.count.subtract(state.withLock { $0.counted }, ordering: .relaxed) }

    var session: UInt64 { sealing.load(ordering: .acquiring) }

    /// Which lowest node lists a page, and where.
    static func leaf(of page: UInt64) -> (index: UInt64, slot: Int) {
        let (index, slot) = page.quotientAndRemainder(dividingBy: UInt64(TreeGeometry.arity))
        return (index, Int(slot))
    }

    /// A lowest node that is in memory.
    func leaf(_ index: UInt64) -> Leaf? { state.withLock { $0.leaves[index] } }

    /// Where a lowest node that is not in memory is to be read from.
    enum Source {
        /// It lists nothing, nor do those after it up to `next`; `nil`: none is stored after it.
        case nothing(next: UInt64?)
        /// Below that node, which is in memory, or is the uppermost one.
        case below(NodeID, TreeEntry)
    }

    /// The next node to read on the way to the lowest one of `index`; with level 1 it is that one itself.
    func source(of index: UInt64) -> Source {
        state.withLock { state in
            let arity = UInt64(TreeGeometry.arity)
            guard state.root.depth > 0,
                index * arity < min(state.storedPages, TreeGeometry.pages(below: state.root.depth))
            else { return .nothing(next: nil) }
            var node = NodeID(level: state.root.depth, index: 0)
            var entry = state.root.entries.0
            while node.level > 1, let lines = state.uppers[node] {
                let child = index / TreeGeometry.pages(below: node.level - 2)
                let slot = Int(child % arity)
                entry = slot < lines.count ? lines[slot] : .none
                node = NodeID(level: node.level - 1, index: child)
                if entry.isNone {
                    let leaves = TreeGeometry.pages(below: node.level - 1)
                    return .nothing(next: (index / leaves + 1) * leaves)
                }
            }
            return .below(node, entry)
        }
    }

    /// What lies at a lowest node, or after it.
    enum Next {
        case none
        /// That node is in memory, or is stored.
        case listed(UInt64)
        /// The next one to look at.
        case nothingUntil(UInt64)
        /// It takes a node that is not in memory to tell.
        case unknown(NodeID, TreeEntry)
    }

    func next(from index: UInt64) -> Next {
        if state.withLock({ $0.leaves[index] != nil }) { return .listed(index) }
        switch source(of: index) {
        case .below(let node, let entry): return node.level == 1 ? .listed(index) : .unknown(node, entry)
        case .nothing(let stored):
            let kept = state.withLock { $0.leaves.keys.filter { $0 > index }.min() }
            guard let next = [kept, stored].compactMap({ $0 }).min() else { return .none }
            return .nothingUntil(next)
        }
    }

    /// A node above the lowest was read.
    func addUpper(_ node: NodeID, _ lines: [TreeEntry]) {
        state.withLock { state in
            Self.trim(&state.uppers)
            state.uppers[node] = lines
        }
    }

    /// Makes room for one more.
    static func trim(_ uppers: inout [NodeID: [TreeEntry]]) {
        while uppers.count >= keptUppers, let any = uppers.keys.randomElement() { uppers[any] = nil }
    }

    /// A lowest node was read, or lists nothing. Returns it as it is in memory now.
    func addLeaf(_ index: UInt64, _ lines: [TreeEntry]) -> Leaf {
        state.withLock { state in
            if let known = state.leaves[index] { return known }
            let first = index * UInt64(TreeGeometry.arity)
            let counted = state.storedPages > first ? min(UInt64(lines.count), state.storedPages - first) : 0
            let leaf = Leaf(entries: Array(lines.prefix(Int(counted))))
            evict(&state)
            state.leaves[index] = leaf
            state.spare.append(index)
            return leaf
        }
    }

    /// Makes room for one more lowest node, and tells the budget.
    func evict(_ state: inout State) {
        let limit = budget.isScarce ? Self.keptScarcely : Self.keptLeaves
        while state.leaves.count >= limit, !state.spare.isEmpty {
            let place = Int.random(in: 0..<state.spare.count)
            let index = state.spare[place]
            state.spare[place] = state.spare[state.spare.count - 1]
            state.spare.removeLast()
            if state.isSpare(index) { state.leaves[index] = nil }
        }
        recount(&state, more: 1)
    }

    func recount(_ state: inout State, more: Int = 0) {
        budget.count.add(state.leaves.count + more - state.counted, ordering: .relaxed)
        state.counted = state.leaves.count + more
    }

    /// Before pages below a lowest node are stored: it stays in memory. False when it is not there.
    func hold(_ index: UInt64) -> Bool {
        state.withLock { state in
            guard state.leaves[index] != nil else { return false }
            state.leaves[index]?.isDirty = true
            return true
        }
    }

    /// Pages were stored; `line` gives the line of each. Their nodes are held.
    func list(_ first: UInt64, count: Int, _ line: (Int) -> TreeEntry) {
        state.withLock { state in
            var (index, slot) = Self.leaf(of: first)
            var done = 0
            while done < count {
                let some = min(TreeGeometry.arity - slot, count - done)
                assert(state.leaves[index]?.isDirty == true)
                for place in 0..<some {
                    state.leaves[index, default: Leaf(isDirty: true)][slot + place] = line(done + place)
                }
                done += some
                (index, slot) = (index + 1, 0)
            }
        }
    }

    /// A write failed: pages may be the old ones or the new ones.
    func doubt() {
        state.withLock { state in
            state.isRagged = true
            state.failures += 1
        }
    }

    /// Sessions of pages that are not listed and may be there all the same; `nil` where there are none.
    var unlistedSessions: ClosedRange<UInt64>? {
        state.withLock { $0.isRagged ? $0.root.floor...max($0.root.top + 4, session) : nil }
    }

    var isRagged: Bool { state.withLock { $0.isRagged } }

    /// The file ends after so many pages.
    func cut(to pages: UInt64) {
        state.withLock { state in
            let (last, count) = Self.leaf(of: pages)
            for index in state.leaves.keys where index > last { state.leaves[index] = nil }
            if let leaf = state.leaves[last], leaf.entries.count > count {
                state.leaves[last] = Leaf(entries: Array(leaf.entries.prefix(count)), isDirty: true)
            }
            state.storedPages = min(state.storedPages, pages)
            state.cutSince = min(state.cutSince, pages)
            recount(&state)
        }
    }

    /// A page was found to be another version than its line, as a crash may have left it. Writers are kept out. False when its node is
    /// not in memory.
    func accept(_ page: UInt64, _ line: TreeEntry) -> Bool {
        state.withLock { state in
            let (index, slot) = Self.leaf(of: page)
            guard var leaf = state.leaves[index] else { return false }
            leaf[slot] = line
            leaf.isDirty = true
            state.leaves[index] = leaf
            return true
        }
    }

    /// Something differs from what is stored, or may.
    var needsStore: Bool {
        state.withLock { state in
            !state.isStuck
                && (state.isRagged || state.headerIsBehind || state.storedPages < UInt64.max
                    || state.leaves.contains { $0.value.isPinned })
        }
    }

    /// What a header says that is about to be stored; `isOpen`: pages will be written. The sessions in it tell a reader whether all pages
    /// are listed. Under the content's lock, held alone.
    func rootForHeader(isOpen: Bool) -> TreeRoot {
        state.withLock { state in
            let isBehind =
                isOpen || state.isRagged || state.storedPages < UInt64.max
                || state.leaves.contains { $0.value.isPinned }
            state.root.top = isBehind ? max(session, state.root.floor + 1) : state.root.floor
            return state.root
        }
    }

    /// The header names nodes.
    var hasNodes: Bool { state.withLock { $0.root.depth > 0 } }

    var isStuck: Bool { state.withLock { $0.isStuck } }

    var isGone: Bool { state.withLock { $0.isGone } }

    /// The last name is gone: its nodes are for those who have it open.
    func leave() { state.withLock { $0.isGone = true } }

    /// A flush failed: see `State.isStuck`.
    func getStuck() { state.withLock { $0.isStuck = true } }

    /// True for the first change since it was stored as it is.
    func noteChange() -> Bool { !isNoted.exchange(true, ordering: .acquiringAndReleasing) }

    func noteStored() { isNoted.store(false, ordering: .releasing) }

    /// Where the look at all pages goes on; `nil` when there is nothing to look for.
    var scanFrom: UInt64? {
        state.withLock { state in
            guard state.isRagged, !state.isStuck else { return nil }
            if state.scan.failures != state.failures { state.scan = (0, state.failures, false) }
            return state.scan.isDone ? nil : state.scan.pages
        }
    }

    /// Pages up to `pages` were looked at; `nil`: all of them.
    func scanned(to pages: UInt64?) {
        state.withLock { state in
            state.scan.pages = pages ?? state.scan.pages
            state.scan.isDone = pages == nil
        }
    }
}

extension PageTree.State {
    func isSpare(_ index: UInt64) -> Bool {
        guard let leaf = leaves[index] else { return true }
        // What the header itself lists is nowhere else.
        return !leaf.isPinned && !(index == 0 && root.depth == 0)
    }
}

/// How many lowest nodes all trees of a volume keep.
final class LeafBudget: Sendable {
    let count = Atomic<Int>(0)
    /// 32 MiB of them: those that are stored go.
    var isScarce: Bool { count.load(ordering: .relaxed) > 8192 }
    /// 64 MiB: others have to be stored.
    var isExceeded: Bool { count.load(ordering: .relaxed) > 16_384 }
}
