import TestSupport
import Testing
import VolumeFormat

/// The page tree's root in a file's header, and where its nodes lie (FORMAT §12).
@Suite struct TreeRootTests {
    private static let line = TreeEntry(tag: (0x0102_0304_0506_0708, 0x1112_1314_1516_1718), word: 9)

    private func header(_ root: TreeRoot) -> [UInt8] {
        var header = Samples.fileHeader()
        header.tree = root
        return header.authenticatedBytes + Samples.mac
    }

    private func parse(_ bytes: [UInt8]) throws(FormatError) -> FileHeader {
        try bytes.withUnsafeBufferPointer { (bytes) throws(FormatError) in
            try FileHeader(parsing: UnsafeRawBufferPointer(bytes))
        }
    }

    @Test(arguments: [
        TreeRoot(floor: 1, top: 1), TreeRoot(floor: 3, top: 9, entries: (line, .none)),
        TreeRoot(floor: 3, top: 4, entries: (line, line)),
        TreeRoot(floor: 1, top: 1 << 60, depth: 7, entries: (TreeEntry(tag: (1, 2), word: 2), .none)),
    ])
    func roundTrip(root: TreeRoot) throws {
        let bytes = header(root)
        let parsed = try parse(bytes)
        #expect(parsed.tree == root)
        #expect(parsed.features == .pageTree)
        #expect(parsed.authenticatedBytes + Samples.mac == bytes)
        #expect(bytes[84] == UInt8(truncatingIfNeeded: root.floor))
    }

    @Test(
        arguments: [
            // Floor 0; top below floor; depth 8; bytes that are zero; a node's place that there is not; a second root.
            (84, [0]), (92, [0]), (100, [8]), (101, [1]), (103, [1]), (120, [3]), (120, [0]), (128, [1]), (144, [1]),
        ] as [(Int, [UInt8])])
    func refused(offset: Int, bytes: [UInt8]) {
        var sample = header(TreeRoot(floor: 2, top: 3, depth: 2, entries: (TreeEntry(tag: (1, 2), word: 1), .none)))
        sample.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        #expect(throws: FormatError.self) { try parse(sample) }
    }

    @Test func depths() {
        let limits: [(UInt64, Int)] = [
            (0, 0), (2, 0), (3, 1), (169, 1), (170, 2), (169 * 169, 2), (169 * 169 + 1, 3), (1 << 50, 7),
            (Geometry.pageCount(forSize: Geometry.maximumSize), 7),
        ]
        for (pages, depth) in limits { #expect(TreeGeometry.depth(forPages: pages) == depth) }
    }

    /// No two nodes share a place, and what a small file needs lies at the beginning.
    @Test func places() {
        var seen: Set<UInt64> = []
        for level in 1...TreeGeometry.maximumDepth {
            let count = level == 1 ? 169 * 169 + 500 : level == 2 ? 400 : level == 3 ? 170 : level < 7 ? 2 : 1
            for index in 0..<UInt64(count) {
                for slot: UInt64 in 1...2 {
                    #expect(seen.insert(TreeGeometry.offset(level: level, index: index, slot: slot)).inserted)
                }
            }
        }
        #expect(TreeGeometry.offset(level: 7, index: 0, slot: 1) == 0)
        #expect(TreeGeometry.offset(level: 1, index: 0, slot: 1) == 6 * 8192)
        #expect(TreeGeometry.offset(level: 1, index: 1, slot: 2) == 7 * 8192 + 4096)
        let last = (Geometry.pageCount(forSize: Geometry.maximumSize) - 1) / 169
        #expect(TreeGeometry.offset(level: 1, index: last, slot: 2) < 1 << 62)
    }
}
