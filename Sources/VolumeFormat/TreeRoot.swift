/// One line of a page tree, 24 bytes: a GCM tag 16 | a word 8 (FORMAT §12). A word of 0: nothing is there.
///
/// Of a page the word is the session in which it was sealed; of a node it is 1 or 2, and says in which of the node's two places it lies.
package struct TreeEntry: Equatable, Sendable, BitwiseCopyable {
    package static let size = 24
    /// The tag's halves, as they lie in memory.
    package var tag: (first: UInt64, second: UInt64)
    package var word: UInt64

    package static let none = TreeEntry(tag: (0, 0), word: 0)

    package init(tag: (first: UInt64, second: UInt64), word: UInt64) {
        self.tag = tag
        self.word = word
    }

    /// The tag at an address, and a word.
    @inlinable package init(tagAt address: UnsafeRawPointer, word: UInt64) {
        tag = (
            address.loadUnaligned(as: UInt64.self), address.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
        )
        self.word = word
    }

    /// Reads the 24 bytes at an address.
    package init(at address: UnsafeRawPointer) {
        self.init(
            tagAt: address, word: UInt64(littleEndian: address.loadUnaligned(fromByteOffset: 16, as: UInt64.self)))
    }

    package func store(at address: UnsafeMutableRawPointer) {
        address.storeBytes(of: tag.first, as: UInt64.self)
        address.storeBytes(of: tag.second, toByteOffset: 8, as: UInt64.self)
        address.storeBytes(of: word.littleEndian, toByteOffset: 16, as: UInt64.self)
    }

    @inlinable package var isNone: Bool { word == 0 }

    @inlinable package func hasTag(at address: UnsafeRawPointer) -> Bool {
        address.loadUnaligned(as: UInt64.self) == tag.first
            && address.loadUnaligned(fromByteOffset: 8, as: UInt64.self) == tag.second
    }

    package static func == (left: TreeEntry, right: TreeEntry) -> Bool {
        left.tag == right.tag && left.word == right.word
    }
}

/// What a file's header says of its page tree, 68 bytes (FORMAT §12).
package struct TreeRoot: Equatable, Sendable {
    package static let size = 68
    /// Pages that the header itself lists.
    package static let inlinePages = 2
    private static let object: StaticString = "page tree"

    /// Pages of this session or a later one may not be listed yet; all others are.
    package var floor: UInt64
    /// Sessions that may have been used end two after it.
    package var top: UInt64
    /// Levels of nodes; 0: the entries are those of the first two pages, otherwise the first one is the uppermost node's.
    package var depth: Int
    package var entries: (TreeEntry, TreeEntry)

    package init(floor: UInt64, top: UInt64, depth: Int = 0, entries: (TreeEntry, TreeEntry) = (.none, .none)) {
        self.floor = floor
        self.top = top
        self.depth = depth
        self.entries = entries
    }

    package static func == (left: TreeRoot, right: TreeRoot) -> Bool {
        left.floor == right.floor && left.top == right.top && left.depth == right.depth && left.entries == right.entries
    }

    package func encode(into writer: inout ByteWriter) {
        writer.append(floor)
        writer.append(top)
        writer.append(UInt8(depth))
        writer.append(contentsOf: [0, 0, 0])
        for entry in [entries.0, entries.1] {
            withUnsafeBytes(of: entry.tag.first) { writer.append(contentsOf: $0) }
            withUnsafeBytes(of: entry.tag.second) { writer.append(contentsOf: $0) }
            writer.append(entry.word)
        }
    }

    init(from reader: inout ByteReader) throws(FormatError) {
        floor = try reader.read()
        top = try reader.read()
        depth = Int(try reader.read(UInt8.self))
        try reader.expectZeros(3)
        func entry(_ reader: inout ByteReader) throws(FormatError) -> TreeEntry {
            let bytes = try reader.readBytes(TreeEntry.size)
            return bytes.withUnsafeBytes { $0.baseAddress.map { TreeEntry(at: $0) } ?? .none }
        }
        entries = (try entry(&reader), try entry(&reader))
        guard floor > 0, top >= floor, top < UInt64.max / 2, depth <= TreeGeometry.maximumDepth else {
            throw FormatError(.malformed, Self.object)
        }
        if depth > 0 {
            guard (1...2).contains(entries.0.word), entries.1 == .none else {
                throw FormatError(.malformed, Self.object)
            }
        }
    }
}

/// Where the nodes of a page tree lie in their file (FORMAT §12): as a walk meets them that looks at each node before its children,
/// in a tree of seven levels. Each has two places, one after the other.
package enum TreeGeometry {
    /// Entries of a node.
    package static let arity = 169
    package static let nodeSize = 4096
    package static let maximumDepth = 7

    /// Pages below a node of `level`; 1 is the lowest.
    package static func pages(below level: Int) -> UInt64 {
        var pages: UInt64 = 1
        for _ in 0..<level { pages *= UInt64(arity) }
        return pages
    }

    /// Nodes of a whole tree of `level` levels.
    private static func nodes(of level: Int) -> UInt64 {
        var nodes: UInt64 = 0
        for _ in 0..<level { nodes = nodes * UInt64(arity) + 1 }
        return nodes
    }

    /// Levels that a file of so many pages needs.
    package static func depth(forPages pages: UInt64) -> Int {
        guard pages > UInt64(TreeRoot.inlinePages) else { return 0 }
        var depth = 1
        while Self.pages(below: depth) < pages { depth += 1 }
        return depth
    }

    /// Byte offset of a node's place. `slot`: 1 or 2, as its entry says.
    package static func offset(level: Int, index: UInt64, slot: UInt64) -> UInt64 {
        var position = UInt64(maximumDepth - level)
        var index = index
        for below in level..<maximumDepth {
            position += index % UInt64(arity) * nodes(of: below)
            index /= UInt64(arity)
        }
        return (position * 2 + (slot - 1)) * UInt64(nodeSize)
    }
}

/// The additional authenticated data of a tree's node, 32 bytes: "LTRE" | version and length 4 | file UUID 16 | index × 8 + level 8.
package enum TreeAAD {
    private static let magic: UInt32 = 0x4552_544C  // "LTRE", little-endian

    package static func make(
        file: UniqueID, level: Int, index: UInt64, leader: PageLeader
    ) -> (UInt64, UInt64, UInt64, UInt64) {
        (
            (UInt64(magic) | UInt64(leader.versionAndLength) << 32).littleEndian, file.high.bigEndian,
            file.low.bigEndian, (index << 3 | UInt64(level)).littleEndian
        )
    }
}
