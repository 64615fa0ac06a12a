import CLinux
import Ciphers
import Storage
import VolumeFormat

/// How an open file uses its page tree (FORMAT §12).
extension FileContent {
    /// The lines of pages, with their nodes read in; `nil` without a tree. The caller holds `lock`.
    func lines(_ first: PageIndex, count: Int) throws(Errno) -> [TreeEntry]? {
        guard let tree else { return nil }
        var lines: [TreeEntry] = []
        lines.reserveCapacity(count)
        var (index, slot) = PageTree.leaf(of: first.rawValue)
        while lines.count < count {
            let some = min(TreeGeometry.arity - slot, count - lines.count)
            let leaf: PageTree.Leaf
            if let known = tree.leaf(index) { leaf = known } else { leaf = try loadLeaf(index, of: tree) }
            for place in slot..<slot + some { lines.append(leaf[place]) }
            (index, slot) = (index + 1, 0)
        }
        return lines
    }

    /// Before pages are stored: their nodes are in memory, and stay there.
    func holdLines(_ first: PageIndex, count: Int) throws(Errno) {
        guard let tree else { return }
        let last = PageTree.leaf(of: first.rawValue + UInt64(count) - 1).index
        for index in PageTree.leaf(of: first.rawValue).index...last {
            // Readers, who could have it dropped again, are kept out.
            while !tree.hold(index) { _ = try loadLeaf(index, of: tree) }
        }
        noteTree(tree)
    }

    /// Consecutive sealed pages, beginning with `first` at `cipher`, were stored. The caller holds `lock` alone, and their lines.
    func listPages(_ first: PageIndex, count: Int, at cipher: UnsafeRawPointer) {
        guard let tree else { return }
        tree.list(first.rawValue, count: count) { Self.line(first, $0, cipher, tree.session) }
    }

    /// A call that changes pages failed: some may be the old ones still. It stays with the sessions until all pages were looked at.
    func doubtPages() {
        guard let tree else { return }
        tree.doubt()
        noteTree(tree)
    }

    /// Pages that a crash left unlisted are looked for, whoever opens the file, and for whatever.
    func noteRaggedTree() {
        if let tree, tree.isRagged { noteTree(tree) }
    }

    /// It has something to store.
    private func noteTree(_ tree: PageTree) {
        guard isWritable, !volume.options.readOnly else { return }
        volume.trees?.note(inode, tree, in: volume.table)
    }

    /// A write of consecutive pages failed, which lie sealed at `cipher`: those that are there are listed. The caller holds `lock` alone,
    /// and their lines.
    func listWritten(_ first: PageIndex, count: Int, at cipher: UnsafeRawPointer) {
        guard let tree else { return }
        let found = UnsafeMutableRawPointer.allocate(byteCount: count * Geometry.pageSize, alignment: 16)
        defer { found.deallocate() }
        do throws(Errno) {
            let got = try Lower.read(
                descriptor, into: found, count: count * Geometry.pageSize,
                at: first.rawValue * UInt64(Geometry.pageSize))
            for index in 0..<got / Geometry.pageSize {
                let line = Self.line(first, index, cipher, tree.session)
                let skip = first.rawValue == 0 && index == 0 ? Geometry.headerSize : 0
                guard line.hasTag(at: found + index * Geometry.pageSize + skip + PageLeader.tagOffset) else { continue }
                tree.list(first.rawValue + UInt64(index), count: 1) { _ in line }
            }
        } catch { doubtPages() }
    }

    /// The file ends after so many pages. The caller holds `lock` alone.
    func cutLines(to pages: UInt64) {
        guard let tree else { return }
        tree.cut(to: pages)
        noteTree(tree)
    }

    private static func line(
        _ first: PageIndex, _ index: Int, _ cipher: UnsafeRawPointer, _ session: UInt64
    ) -> TreeEntry {
        let skip = first.rawValue == 0 && index == 0 ? Geometry.headerSize : 0
        return TreeEntry(
            tagAt: cipher + index * Geometry.pageSize + skip + PageLeader.tagOffset, word: session)
    }

    /// Pages become holes by `action`, which is called for one piece after the other: of each the nodes are in memory. The caller holds
    /// `lock` alone.
    func unlistPages(
        _ first: UInt64, _ last: UInt64, by action: (ClosedRange<UInt64>) throws(Errno) -> Void
    ) throws(Errno) {
        guard tree != nil else { return try action(first...last) }
        var from = first
        while from <= last {
            // Their nodes are there before, and what comes after it needs no reading.
            var nodes = 0
            var end = last
            try forEachListed(from, last) { (_, range) in
                nodes += 1
                end = nodes < Self.nodesAtOnce ? last : range.upperBound - 1
                return nodes < Self.nodesAtOnce
            }
            do throws(Errno) {
                try action(from...end)
                try forEachListed(from, end) { (tree, range) in
                    tree.list(range.lowerBound, count: range.count) { _ in .none }
                    return true
                }
            } catch {
                // A lower file system that has no holes has not made any.
                if error != .notSupported, error != .invalid { doubtPages() }
                throw error
            }
            from = end + 1
        }
    }

    private static let nodesAtOnce = 256

    /// Pages from `first` to `last` that may be listed, node by node, as long as `body` goes on; their lines are held.
    private func forEachListed(
        _ first: UInt64, _ last: UInt64, _ body: (PageTree, Range<UInt64>) -> Bool
    ) throws(Errno) {
        guard let tree else { return }
        var from = first
        while from <= last {
            let (index, slot) = PageTree.leaf(of: from)
            // Where nothing is listed, nothing has to be taken off: sparse files may be of any size.
            guard let next = try nextListedLeaf(from: index, of: tree) else { return }
            if next > index {
                from = next * UInt64(TreeGeometry.arity)
                continue
            }
            let count = Int(min(UInt64(TreeGeometry.arity - slot), last - from + 1))
            try holdLines(PageIndex(rawValue: from), count: count)
            guard body(tree, from..<from + UInt64(count)) else { return }
            from += UInt64(count)
        }
    }

    /// The first lowest node from `index` on that may list something; `nil` where none does.
    func nextListedLeaf(from index: UInt64, of tree: PageTree) throws(Errno) -> UInt64? {
        var index = index
        while true {
            switch tree.next(from: index) {
            case .none: return nil
            case .listed(let found): return found
            case .nothingUntil(let next): index = next
            case .unknown(let node, let entry): tree.addUpper(node, try readNode(node, entry))
            }
        }
    }

    private func loadLeaf(_ index: UInt64, of tree: PageTree) throws(Errno) -> PageTree.Leaf {
        while true {
            switch tree.source(of: index) {
            case .nothing: return tree.addLeaf(index, [])
            case .below(let node, let entry):
                let lines = try readNode(node, entry)
                if node.level == 1 { return tree.addLeaf(index, lines) }
                tree.addUpper(node, lines)
            }
        }
    }

    /// Lists a page as it was found.
    private func accept(_ page: PageIndex, _ line: TreeEntry, _ tree: PageTree) throws(Errno) {
        // Other readers may have its node dropped.
        for _ in 0..<1000 {
            if tree.accept(page.rawValue, line) { return noteTree(tree) }
            _ = try loadLeaf(PageTree.leaf(of: page.rawValue).index, of: tree)
        }
        throw .io
    }

    /// Reads a node and opens it; its tag is the one that its entry lists.
    func readNode(_ node: PageTree.NodeID, _ entry: TreeEntry) throws(Errno) -> [TreeEntry] {
        let file = try openTreeFile(creating: false)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 2 * TreeGeometry.nodeSize, alignment: 16)
        defer { buffer.deallocate() }
        let got = try Lower.read(
            file, into: buffer, count: TreeGeometry.nodeSize,
            at: TreeGeometry.offset(level: node.level, index: node.index, slot: entry.word))
        let leader = PageLeader(at: buffer)
        let (count, rest) = leader.usedLength.quotientAndRemainder(dividingBy: TreeEntry.size)
        guard got == TreeGeometry.nodeSize, entry.hasTag(at: buffer + PageLeader.tagOffset), rest == 0,
            count <= TreeGeometry.arity, let key = keys.first(where: { $0.version == leader.version })?.tree
        else { throw damagedTree("a node is not the one that is listed") }
        let plain = buffer + TreeGeometry.nodeSize
        let aad = TreeAAD.make(file: header.file, level: node.level, index: node.index, leader: leader)
        do {
            try volume.aead.withContext(for: key.key) { (context) throws(CipherError) in
                try context.loadForOpening(key.key)
                try withUnsafeBytes(of: aad) { (aad) throws(CipherError) in
                    try context.open(
                        iv: buffer, aad: aad,
                        ciphertext: UnsafeRawBufferPointer(
                            start: buffer + Geometry.leaderSize, count: Geometry.payload),
                        tag: buffer + PageLeader.tagOffset, plaintext: plain)
                }
            }
        } catch { throw error.code == .notAuthentic ? damagedTree("a node is not authentic") : .io }
        return (0..<count).map { TreeEntry(at: plain + $0 * TreeEntry.size) }
    }

    func damagedTree(_ reason: String) -> Errno { volume.damaged(.pageTree, inode.number, reason) }

    /// The file that the tree's nodes are in.
    func openTreeFile(creating: Bool) throws(Errno) -> Descriptor {
        if let known = treeFile.withLock({ $0 }) { return known }
        guard let trees = volume.trees, let tree else { throw .io }
        let name = "\(tree.file)"
        let opened: Descriptor
        let kept = inode.state.withLock { $0.treeFile }
        if tree.isGone, let kept {
            opened = kept
        } else if creating, tree.isGone {
            opened = try openNodesWithoutName(trees, name)
        } else if creating {
            opened = try Lower.open(
                trees.directory, name, flags: O_RDWR | O_CREAT | O_NOCTTY, mode: 0o600, for: .daemon)
        } else {
            do throws(Errno) {
                opened = try Lower.open(
                    trees.directory, name,
                    flags: (volume.options.readOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_NOCTTY)
            } catch {
                guard error == .noEntry || error == .loop else { throw error }
                // The last name went before this was opened.
                guard let kept else { throw damagedTree("its file is missing") }
                opened = kept
            }
        }
        return treeFile.withLock { kept in
            if let kept { return kept }
            // It is stored all the same, and does not stay open; what has no name has to.
            if DescriptorBudget.isSpent, !tree.isGone { return opened }
            kept = opened
            return opened
        }
    }

    /// Of a file without a name: those who have it open need its nodes, and nobody finds them. Where they could not be kept as the name went,
    /// they are still under theirs.
    private func openNodesWithoutName(_ trees: TreeTable, _ name: String) throws(Errno) -> Descriptor {
        do throws(Errno) { return try Lower.open(trees.directory, name, flags: O_RDWR | O_NONBLOCK | O_NOCTTY) } catch {
            guard error == .noEntry else { throw error }
            return try Lower.open(trees.directory, ".", flags: O_RDWR | Int32(LINUX_O_TMPFILE), mode: 0o600)
        }
    }

    /// A page is not what its line says. After a crash, or a write that failed, it may be another version that nothing lists yet; then
    /// it is listed as it is. The caller holds `lock`.
    func openUnlisted(
        _ page: PageIndex, at start: UnsafeMutableRawPointer, into plain: UnsafeMutableRawPointer,
        using context: inout AEADContext
    ) throws(Errno) -> Bool {
        guard let tree else { return false }
        let leader = start + (page.rawValue == 0 ? Geometry.headerSize : 0)
        guard let sessions = tree.unlistedSessions else { return false }
        for session in sessions {
            guard try openPage(page, at: start, into: plain, session: session, using: &context) else { continue }
            try accept(page, TreeEntry(tagAt: leader + PageLeader.tagOffset, word: session), tree)
            return true
        }
        return false
    }

    /// A page is a hole, and its line lists one that was there. False where nothing explains that. The caller holds `lock`.
    func admitsHole(_ page: PageIndex) throws(Errno) -> Bool {
        guard let tree, tree.isRagged else { return false }
        try accept(page, .none, tree)
        return true
    }
}
