/// The header of a directory (FORMAT §5). It is the target of the symbolic link `lethefs.dir` within it, base64url:
/// a journaling file system orders a symbolic link with the renames around it, where the contents of a file would need
/// a flush, so a directory is never there without its header.
package struct DirectoryHeader: Equatable, Sendable {
    package static let magic = Array("LDIR".utf8)
    package static let formatVersion: UInt16 = 1
    package static let macSize = 32
    private static let object: StaticString = "directory header"

    package var features: FeatureFlags
    package var volume: UniqueID
    package var directory: UniqueID
    package var zone: ZoneID
    package var generation: UInt64
    package var slots: [DEKSlot]

    package init(
        features: FeatureFlags = [], volume: UniqueID, directory: UniqueID, zone: ZoneID, generation: UInt64,
        slots: [DEKSlot]
    ) {
        self.features = features
        self.volume = volume
        self.directory = directory
        self.zone = zone
        self.generation = generation
        self.slots = slots
    }

    /// All but the MAC, which follows.
    package var authenticatedBytes: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Self.magic)
        writer.append(Self.formatVersion)
        writer.append(features.rawValue)
        writer.append(volume)
        writer.append(directory)
        writer.append(zone.rawValue)
        writer.append(generation)
        writer.append(UInt8(slots.count))
        for slot in slots { slot.encode(into: &writer) }
        return writer.bytes
    }

    /// Reads the fields of a whole header; its MAC is the last 32 bytes, over all before them.
    package init(parsing bytes: UnsafeRawBufferPointer) throws(FormatError) {
        var reader = ByteReader(bytes, of: Self.object)
        try reader.expect(magic: Self.magic, version: Self.formatVersion)
        features = FeatureFlags(rawValue: try reader.read())
        guard features.isSubset(of: .known) else { throw FormatError(.unknownFeature, Self.object) }
        volume = try reader.readID()
        directory = try reader.readID()
        zone = ZoneID(rawValue: try reader.read())
        generation = try reader.read()
        let count = Int(try reader.read(UInt8.self))
        guard (1...DEKSlot.maximumCount).contains(count) else { throw FormatError(.malformed, Self.object) }
        var slots: [DEKSlot] = []
        for _ in 0..<count { slots.append(try DEKSlot(from: &reader, of: Self.object)) }
        try DEKSlot.validate(slots, of: Self.object)
        self.slots = slots
        guard reader.remaining == Self.macSize else { throw FormatError(.malformed, Self.object) }
    }

    package var currentIndex: Int { slots.firstIndex { $0.state == .current } ?? 0 }
}
