/// What a manifest says (FORMAT §11): the generation that each file's header had reached when it was last made durable. It lies
/// outside the lower tree, in a sealed file.
package struct ManifestList: Equatable, Sendable {
    package static let magic = Array("LMANIFST".utf8)
    package static let formatVersion: UInt16 = 1
    private static let object: StaticString = "manifest"
    private static let fixedSize = 8 + 2 + 16 + 8 + 8
    /// Files that a manifest may list: more than anybody has, and a bound for hostile ones.
    package static let maximumCount = 1 << 28

    package struct Entry: Equatable, Sendable {
        package var file: UniqueID
        package var generation: UInt64
        package init(file: UniqueID, generation: UInt64) {
            self.file = file
            self.generation = generation
        }
        static let size = 24
    }

    /// The longest body.
    package static let maximumEncodedSize = fixedSize + maximumCount * Entry.size

    package var volume: UniqueID
    /// Every file whose header was stored in this epoch or before is listed.
    package var coveredEpoch: UInt64
    /// In the order of their UUIDs.
    package var entries: [Entry]

    package init(volume: UniqueID, coveredEpoch: UInt64 = 0, entries: [Entry] = []) {
        self.volume = volume
        self.coveredEpoch = coveredEpoch
        self.entries = entries
    }

    package var authenticatedBytes: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Self.magic)
        writer.append(Self.formatVersion)
        writer.append(volume)
        writer.append(coveredEpoch)
        writer.append(UInt64(entries.count))
        for entry in entries {
            writer.append(entry.file)
            writer.append(entry.generation)
        }
        return writer.bytes
    }

    package init(parsing bytes: UnsafeRawBufferPointer) throws(FormatError) {
        var reader = ByteReader(bytes, of: Self.object)
        try reader.expect(magic: Self.magic, version: Self.formatVersion)
        volume = try reader.readID()
        coveredEpoch = try reader.read()
        let count: UInt64 = try reader.read()
        guard count <= UInt64(Self.maximumCount), reader.remaining == Int(count) * Entry.size else {
            throw FormatError(.malformed, Self.object)
        }
        entries = []
        entries.reserveCapacity(Int(count))
        for _ in 0..<count {
            let entry = Entry(file: try reader.readID(), generation: try reader.read())
            guard entry.generation > 0, entries.last.map({ $0.file < entry.file }) ?? true else {
                throw FormatError(.malformed, Self.object)
            }
            entries.append(entry)
        }
    }

    /// The generation of a file; `nil` for one that is not listed.
    package func generation(of file: UniqueID) -> UInt64? {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].file < file { low = middle + 1 } else { high = middle }
        }
        return low < entries.count && entries[low].file == file ? entries[low].generation : nil
    }

    /// With changes applied: a generation of 0 takes a file out.
    package func applying(_ changes: [UniqueID: UInt64]) -> [Entry] {
        let added = changes.map { Entry(file: $0.key, generation: $0.value) }.sorted { $0.file < $1.file }
        var result: [Entry] = []
        result.reserveCapacity(entries.count + added.count)
        var next = 0
        for entry in entries {
            while next < added.count, added[next].file < entry.file {
                if added[next].generation > 0 { result.append(added[next]) }
                next += 1
            }
            if next < added.count, added[next].file == entry.file {
                if added[next].generation > 0 { result.append(added[next]) }
                next += 1
            } else {
                result.append(entry)
            }
        }
        result += added[next...].filter { $0.generation > 0 }
        return result
    }
}
