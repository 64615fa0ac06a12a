import TestSupport
import Testing
import VolumeFormat

/// The list of generations: what it finds, how changes go in, what it refuses to be.
@Suite struct ManifestListTests {
    private func entry(_ number: UInt64, _ generation: UInt64) -> ManifestList.Entry {
        ManifestList.Entry(file: UniqueID(high: number / 7, low: number &* 0x9E37_79B9), generation: generation)
    }

    private func parsed(_ bytes: [UInt8]) throws -> ManifestList {
        try bytes.withUnsafeBytes { try ManifestList(parsing: $0) }
    }

    /// Random changes, round after round, beside a dictionary that does the same.
    @Test func changesAgainstADictionary() throws {
        var generator = SeededGenerator(seed: 11)
        var list = ManifestList(volume: UniqueID(high: 1, low: 2))
        var model: [UniqueID: UInt64] = [:]
        for round in 0..<60 {
            var changes: [UniqueID: UInt64] = [:]
            for _ in 0..<generator.below(40) {
                let one = entry(UInt64(generator.below(200)), UInt64(generator.below(4) * (round + 1)))
                changes[one.file] = one.generation
                model[one.file] = one.generation == 0 ? nil : one.generation
            }
            list.entries = list.applying(changes)
            #expect(list.entries.count == model.count)
            for number in 0..<200 {
                let file = entry(UInt64(number), 1).file
                #expect(list.generation(of: file) == model[file])
            }
            #expect(try parsed(list.authenticatedBytes) == list)
        }
    }

    @Test func refusesWhatIsNotAList() throws {
        let good = ManifestList(
            volume: UniqueID(high: 1, low: 2), coveredEpoch: 3, entries: [entry(7, 1), entry(14, 2)])
        #expect(try parsed(good.authenticatedBytes) == good)
        for count in 0..<good.authenticatedBytes.count {
            #expect(throws: FormatError.self) { try parsed(Array(good.authenticatedBytes[..<count])) }
        }
        #expect(throws: FormatError.self) { try parsed(good.authenticatedBytes + [0]) }
        for entries in [[entry(14, 2), entry(7, 1)], [entry(7, 1), entry(7, 2)], [entry(7, 0)]] {
            var bad = good
            bad.entries = entries
            #expect(throws: FormatError.self) { try parsed(bad.authenticatedBytes) }
        }
        // A count that would overflow when it is multiplied.
        var bytes = good.authenticatedBytes
        for index in 34..<42 { bytes[index] = 0xFF }
        #expect(throws: FormatError.self) { try parsed(bytes) }
    }
}
