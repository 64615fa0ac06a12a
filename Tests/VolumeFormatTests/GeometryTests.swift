import TestSupport
import Testing
import VolumeFormat

@Suite struct GeometryTests {
    typealias Row = (size: UInt64, pages: UInt64, last: UInt64, used: UInt64, lower: UInt64)

    /// Plaintext size, pages, index of the last page, bytes used in it, lower length: worked out by hand from FORMAT §2.
    static let table: [Row] = [
        (1, 1, 0, 1, 4097), (2, 1, 0, 2, 4098), (511, 1, 0, 511, 4607), (512, 1, 0, 512, 4608),
        (3551, 1, 0, 3551, 7647), (3552, 1, 0, 3552, 7648), (3553, 2, 1, 1, 8193),
        (4095, 2, 1, 543, 8735), (4096, 2, 1, 544, 8736), (4097, 2, 1, 545, 8737),
        (7615, 2, 1, 4063, 12255), (7616, 2, 1, 4064, 12256), (7617, 3, 2, 1, 12289),
        (11679, 3, 2, 4063, 16351), (11680, 3, 2, 4064, 16352), (11681, 4, 3, 1, 16385),
        (1_048_576, 259, 258, 576, 1_061_440),
    ]

    @Test(arguments: table)
    func sizes(row: Row) {
        #expect(Geometry.pageCount(forSize: row.size) == row.pages)
        #expect(Geometry.page(at: row.size - 1).rawValue == row.last)
        #expect(row.size - Geometry.plainStart(of: PageIndex(rawValue: row.last)) == row.used)
        #expect(Geometry.lowerLength(forSize: row.size) == row.lower)
        #expect(Geometry.interpret(lowerLength: row.lower) == .size(row.size))
    }

    @Test func constants() {
        #expect(Geometry.firstPayload == 3552 && Geometry.payload == 4064)
        #expect(Geometry.headerSize + Geometry.leaderSize + Geometry.firstPayload == Geometry.pageSize)
        #expect(Geometry.leaderSize + Geometry.payload == Geometry.pageSize)
        #expect(Geometry.pageCount(forSize: 0) == 0 && Geometry.lowerLength(forSize: 0) == 512)
    }

    static let lengths: [(UInt64, Geometry.LowerLength)] = [
        (0, .unwritten), (1, .invalid), (511, .invalid), (512, .size(0)), (513, .invalid), (4095, .invalid),
        (4096, .lastPageDecides(pages: 1)), (7648, .size(3552)), (7649, .invalid), (8191, .invalid),
        (8192, .lastPageDecides(pages: 2)), (12256, .size(7616)), (12257, .invalid), (12287, .invalid),
        (12288, .lastPageDecides(pages: 3)), (UInt64.max, .invalid),
    ]

    @Test(arguments: lengths)
    func lowerLengths(length: UInt64, expected: Geometry.LowerLength) {
        #expect(Geometry.interpret(lowerLength: length) == expected)
    }

    @Test func interpretIsTheInverse() {
        var generator = SeededGenerator(seed: 1)
        let small = Array(UInt64(0)...20_000)
        let large = (0..<20_000).map { _ in UInt64.random(in: 0...(1 << 61), using: &generator) }
        for size in small + large {
            let lower = Geometry.lowerLength(forSize: size)
            #expect(Geometry.interpret(lowerLength: lower) == .size(size))
            #expect(lower % 4096 != 0)
        }
    }

    /// Each length says one thing only: what it says makes the same length again.
    @Test func eachLengthHasOneMeaning() {
        for length in UInt64(0)...50_000 {
            guard case .size(let size) = Geometry.interpret(lowerLength: length) else { continue }
            #expect(Geometry.lowerLength(forSize: size) == length)
        }
    }

    @Test func pagesFollowEachOther() {
        var offset: UInt64 = 0
        for index in UInt64(0)..<1000 {
            let page = PageIndex(rawValue: index)
            #expect(Geometry.plainStart(of: page) == offset)
            #expect(Geometry.page(at: offset) == page)
            offset += UInt64(Geometry.capacity(of: page))
            #expect(Geometry.page(at: offset - 1) == page)
            #expect(Geometry.leaderOffset(of: page) == (index == 0 ? 512 : index * 4096))
        }
    }

    /// The largest size still fits a signed 64-bit offset, and is understood.
    @Test func largest() {
        let lower = Geometry.lowerLength(forSize: Geometry.maximumSize)
        #expect(lower < UInt64(Int64.max))
        #expect(Geometry.interpret(lowerLength: lower) == .size(Geometry.maximumSize))
    }
}
