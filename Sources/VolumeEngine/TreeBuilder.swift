import Ciphers
import Storage
import VolumeFormat

extension FileContent {
    /// Writes the nodes that differ from what is stored, each to that of its two places which the stored tree does not use. Nothing is
    /// flushed. The caller holds `TreeTable.storing`, and `lock`.
    func buildTree(_ snapshot: TreeSnapshot) throws(Errno) -> BuiltTree {
        try requireKeys()
        var builder = TreeBuilder(self, snapshot)
        return try builder.build()
    }
}

/// Brings what a snapshot took to the lower storage: lowest nodes first, and then what is above them, up to the root.
private struct TreeBuilder {
    private let content: FileContent
    private let snapshot: TreeSnapshot
    private let arity = UInt64(TreeGeometry.arity)
    /// Nodes above the lowest, as they are stored.
    private var stored: [PageTree.NodeID: [TreeEntry]] = [:]
    private var built = BuiltTree()

    init(_ content: FileContent, _ snapshot: TreeSnapshot) {
        self.content = content
        self.snapshot = snapshot
    }

    private var root: TreeRoot { snapshot.root }

    mutating func build() throws(Errno) -> BuiltTree {
        built.depth = TreeGeometry.depth(forPages: snapshot.pages)
        guard built.depth > 0 else {
            let lines = snapshot.leaves[0] ?? []
            built.entries = (
                snapshot.pages > 0 && !lines.isEmpty ? lines[0] : .none,
                snapshot.pages > 1 && lines.count > 1 ? lines[1] : .none
            )
            return built
        }
        var changed: [UInt64: TreeEntry] = [:]
        for (index, lines) in snapshot.leaves where index * arity < snapshot.pages {
            changed[index] = try write(PageTree.NodeID(level: 1, index: index), lines)
        }
        var level = 1
        while level < built.depth {
            level += 1
            changed = try raise(changed, to: level)
        }
        let top = PageTree.NodeID(level: built.depth, index: 0)
        let entry: TreeEntry
        if let raised = changed[0] { entry = raised } else { entry = try self.entry(top) }
        if entry.isNone {
            built.depth = 0
            built.uppers = [:]
        }
        built.entries = (entry, .none)
        return built
    }

    /// The nodes of `level` above those that changed.
    private mutating func raise(_ changed: [UInt64: TreeEntry], to level: Int) throws(Errno) -> [UInt64: TreeEntry] {
        var parents = Set(changed.keys.map { $0 / arity })
        // What was the root gets a parent.
        if root.depth > 0, level > root.depth { parents.insert(0) }
        let below = TreeGeometry.pages(below: level - 1)
        // Of what is stored: children that list pages behind a cut are gone.
        let counted = snapshot.storedPages / below + (snapshot.storedPages % below == 0 ? 0 : 1)
        var raised: [UInt64: TreeEntry] = [:]
        for parent in parents {
            let node = PageTree.NodeID(level: level, index: parent)
            var lines = try self.lines(node)
            let kept = counted > parent * arity ? min(UInt64(lines.count), counted - parent * arity) : 0
            lines.removeLast(lines.count - Int(kept))
            for slot in 0..<TreeGeometry.arity {
                guard let entry = changed[parent * arity + UInt64(slot)] else { continue }
                while lines.count <= slot { lines.append(.none) }
                lines[slot] = entry
            }
            raised[parent] = try write(node, lines)
        }
        return raised
    }

    /// The entry by which a node is stored, whether or not it counts.
    private mutating func entry(_ node: PageTree.NodeID) throws(Errno) -> TreeEntry {
        if node.level >= root.depth { return node.level == root.depth && node.index == 0 ? root.entries.0 : .none }
        let lines = try self.lines(PageTree.NodeID(level: node.level + 1, index: node.index / arity))
        let slot = Int(node.index % arity)
        return slot < lines.count ? lines[slot] : .none
    }

    /// A node above the lowest, as it is stored.
    private mutating func lines(_ node: PageTree.NodeID) throws(Errno) -> [TreeEntry] {
        if let known = stored[node] { return known }
        if node.level > root.depth {
            return root.depth > 0 && node.level == root.depth + 1 && node.index == 0 ? [root.entries.0] : []
        }
        let entry = try entry(node)
        guard !entry.isNone else { return [] }
        let lines: [TreeEntry]
        if let kept = content.tree?.state.withLock({ $0.uppers[node] }) {
            lines = kept
        } else {
            lines = try content.readNode(node, entry)
        }
        stored[node] = lines
        return lines
    }

    private mutating func write(_ node: PageTree.NodeID, _ given: [TreeEntry]) throws(Errno) -> TreeEntry {
        var lines = given
        while let last = lines.last, last.isNone { lines.removeLast() }
        guard !lines.isEmpty else {
            if node.level > 1 { built.uppers[node] = [] }
            return .none
        }
        let old = try entry(node)
        let slot: UInt64 = old.isNone ? 1 : 3 - old.word
        let tag = try content.writeNode(node, lines, slot: slot)
        if node.level > 1 { built.uppers[node] = lines }
        built.hasNodes = true
        return TreeEntry(tag: tag, word: slot)
    }
}

extension FileContent {
    /// Seals a node and writes it to one of its places; returns its tag.
    fileprivate func writeNode(
        _ node: PageTree.NodeID, _ lines: [TreeEntry], slot: UInt64
    ) throws(Errno) -> (UInt64, UInt64) {
        guard let key = current.tree else { throw .io }
        let file = try openTreeFile(creating: true)
        let size = TreeGeometry.nodeSize
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 2 * size, alignment: 16)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 0, count: 2 * size)
        let plain = buffer + size
        for (index, line) in lines.enumerated() { line.store(at: plain + index * TreeEntry.size) }
        let leader = PageLeader(version: current.version, usedLength: lines.count * TreeEntry.size)
        var iv = try PageIV()
        iv.next(into: buffer)
        leader.store(at: buffer)
        let aad = TreeAAD.make(file: header.file, level: node.level, index: node.index, leader: leader)
        do {
            try volume.aead.withContext(for: key.key) { (context) throws(CipherError) in
                try context.loadForSealing(key.key)
                try withUnsafeBytes(of: aad) { (aad) throws(CipherError) in
                    try context.seal(
                        iv: buffer, aad: aad, plaintext: UnsafeRawBufferPointer(start: plain, count: Geometry.payload),
                        ciphertext: buffer + Geometry.leaderSize, tag: buffer + PageLeader.tagOffset)
                }
            }
        } catch { throw .io }
        try Lower.write(
            file, from: buffer, count: size,
            at: TreeGeometry.offset(level: node.level, index: node.index, slot: slot))
        return TreeEntry(tagAt: buffer + PageLeader.tagOffset, word: slot).tag
    }
}
