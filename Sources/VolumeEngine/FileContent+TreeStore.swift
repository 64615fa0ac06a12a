import CLinux
import Ciphers
import Storage
import VolumeFormat

/// How one file's page tree is stored: its nodes in their other places, and then the header with the new root (FORMAT §12).
extension FileContent {
    /// Looks at pages, where a crash may have left some unlisted: they are listed. It goes on where it ended the last time, as long as
    /// `goesOn` says so. No lock is held.
    func scanTree(_ goesOn: () -> Bool) throws(Errno) {
        guard let tree, var first = tree.scanFrom else { return }
        let buffer = volume.buffers.takeForSweep()
        defer { volume.buffers.give(buffer) }
        while goesOn() {
            try ensureKeys()
            let next: UInt64? = try lock.reading { () throws(Errno) in
                try requireKeys()
                let pages = Geometry.pageCount(forSize: size)
                guard first < pages else { return nil }
                let count = min(UInt64(TreeGeometry.arity), pages - first)
                try scan(PageIndex(rawValue: first), count: Int(count), buffer)
                return first + count
            }
            tree.scanned(to: next)
            guard let next else { return }
            first = next
        }
    }

    private func scan(_ first: PageIndex, count: Int, _ buffer: RequestBuffer) throws(Errno) {
        buffer.willUse(pages: count)
        guard let lines = try lines(first, count: count) else { return }
        let wanted = count * Geometry.pageSize
        let got = try Lower.read(
            descriptor, into: buffer.cipher, count: wanted, at: first.rawValue * UInt64(Geometry.pageSize))
        (buffer.cipher + got).initializeMemory(as: UInt8.self, repeating: 0, count: wanted - got)
        let key = current
        try volume.aead.withContext(for: key.content) { (context) throws(Errno) in
            for index in 0..<count {
                let page = PageIndex(rawValue: first.rawValue + UInt64(index))
                let start = buffer.cipher + index * Geometry.pageSize
                let leader = start + (page.rawValue == 0 ? Geometry.headerSize : 0)
                let isHole = PageLeader(at: leader).versionAndLength == 0
                let line = lines[index]
                if isHole ? line.isNone : !line.isNone && line.hasTag(at: leader + PageLeader.tagOffset) { continue }
                // One that is damaged keeps its line, and stays damaged.
                _ = try openPage(page, at: start, into: buffer.plain, line: line, using: &context)
            }
        }
    }

    /// Takes what is to be stored; `nil` when there is nothing. The caller holds `lock` alone.
    func takeTree() throws(Errno) -> TreeSnapshot? {
        guard let tree, tree.needsStore, isWritable, stage != .unwritten else { return nil }
        try requireKeys()
        // What the last store has written must be in the header before its places are written to again.
        if tree.state.withLock({ $0.headerIsBehind }) {
            try storeTreeHeader(try Lower.stat(descriptor))
        }
        let pages = Geometry.pageCount(forSize: size)
        // The node in which the file ends lists less than what is stored of it; one that the header lists is put there from memory.
        let storedPages = tree.state.withLock { $0.storedPages }
        if pages > 0, storedPages < UInt64.max {
            try holdLines(PageIndex(rawValue: min(pages, max(storedPages, 1)) - 1), count: 1)
        }
        if pages > 0, pages <= UInt64(TreeRoot.inlinePages) { try holdLines(PageIndex(rawValue: 0), count: 1) }
        return tree.takeSnapshot(pages: pages)
    }

    /// The nodes are durable. The caller holds the gate, and `lock` alone.
    func commitTree(_ snapshot: TreeSnapshot, _ built: BuiltTree) throws(Errno) {
        guard let tree else { return }
        try requireKeys()
        let info = try Lower.stat(descriptor)
        tree.commit(snapshot, built)
        if tree.isGone {
            // Nobody reads its header again. A node's file that was made while the last name went is nobody's.
            tree.headerWasStored()
            if let trees = volume.trees { try? Lower.unlink(trees.directory, "\(tree.file)") }
            return
        }
        header.tree = tree.rootForHeader(isOpen: header.state == .open)
        try storeTreeHeader(info)
        // The nodes are of no use, once no header that could come back after a crash names them.
        if built.depth == 0, snapshot.root.depth > 0 {
            try syncLower(descriptor)
            treeFile.withLock { $0 = nil }
            if let trees = volume.trees { try? Lower.unlink(trees.directory, "\(tree.file)") }
        }
    }

    private func storeTreeHeader(_ info: stat) throws(Errno) {
        header.generation += 1
        if stage == .open || stage == .closed { header.epoch = volume.epoch }
        try storeHeader()
        if stage == .stale, header.state == .open { stage = .open }
        try volume.keepTimes(descriptor, info)
    }

    /// Stores the whole tree at once, and makes it durable. `version`: no node is under another DEK afterwards. The caller holds
    /// `TreeTable.storing`, the gate, and `lock` alone.
    func storeTreeLocked(under version: KeyVersion? = nil) throws(Errno) {
        guard let tree else { return }
        if try Lower.stat(descriptor).st_nlink == 0 { tree.leave() }
        if let version {
            // Its nodes stay under the DEKs that they are under.
            guard !tree.isStuck else { throw .io }
            try holdNodes(notUnder: version)
        }
        guard let snapshot = try takeTree() else { return }
        do throws(Errno) {
            try syncLower(descriptor)
            let built = try buildTree(snapshot)
            if built.hasNodes { try syncLower(try openTreeFile(creating: true)) }
            try commitTree(snapshot, built)
        } catch {
            tree.putBack(snapshot)
            throw error
        }
    }

    /// Has every lowest node that was sealed under another DEK stored again, and so all above it.
    private func holdNodes(notUnder version: KeyVersion) throws(Errno) {
        guard let tree, tree.hasNodes else { return }
        let file = try openTreeFile(creating: false)
        var index: UInt64 = 0
        while let listed = try nextListedLeaf(from: index, of: tree) {
            index = listed + 1
            guard let entry = try storedEntry(PageTree.NodeID(level: 1, index: listed), tree) else { continue }
            let offset = TreeGeometry.offset(level: 1, index: listed, slot: entry.word)
            let word = try Lower.readValue(file, at: offset + UInt64(PageLeader.versionOffset), initial: UInt32(0))
            if PageLeader(versionAndLength: UInt32(littleEndian: word)).version != version {
                try holdLines(PageIndex(rawValue: listed * UInt64(TreeGeometry.arity)), count: 1)
            }
        }
    }

    /// The entry by which a node is stored; `nil` where it is not.
    private func storedEntry(_ node: PageTree.NodeID, _ tree: PageTree) throws(Errno) -> TreeEntry? {
        while true {
            switch tree.source(of: node.index) {
            case .nothing: return nil
            case .below(let found, let entry):
                if found == node { return entry }
                if found.level == 1 { return nil }
                tree.addUpper(found, try readNode(found, entry))
            }
        }
    }
}
