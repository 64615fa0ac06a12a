/// The 512-byte header of a lower file (FORMAT §4). Parsing does not authenticate: the caller unwraps the current DEK,
/// derives the header-MAC key and compares the MAC before it uses any field.
package struct FileHeader: Equatable, Sendable {
    package static let magic = Array("LETHEFIL".utf8)
    package static let formatVersion: UInt16 = 1
    /// Bytes that the MAC covers; the MAC itself fills the rest.
    package static let authenticatedSize = 480
    private static let object: StaticString = "file header"

    package enum State: UInt8, Sendable {
        /// Size and flags are exact.
        case closed = 0
        /// Open for writing when this was stored: size and flags may lag behind the pages.
        case open = 1
    }

    package struct Flags: OptionSet, Sendable {
        package var rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Some pages may be holes: all zero on the lower storage, read as zeros.
        package static let sparse = Flags(rawValue: 1 << 0)
        static let known: Flags = [.sparse]
    }

    package var features: FeatureFlags { tree == nil ? [] : .pageTree }
    package var volume: UniqueID
    package var file: UniqueID
    package var zone: ZoneID
    package var state: State
    package var flags: Flags
    /// Plaintext bytes.
    package var size: UInt64
    /// Goes up with every store of the header.
    package var generation: UInt64
    /// The mount (volume epoch) that stored the header.
    package var epoch: UInt64
    /// What lists the pages; only with the feature flag `pageTree`.
    package var tree: TreeRoot?
    /// 1 to 4; one is current.
    package var slots: [DEKSlot]

    package init(
        volume: UniqueID, file: UniqueID, zone: ZoneID, state: State, flags: Flags = [],
        size: UInt64, generation: UInt64, epoch: UInt64, tree: TreeRoot? = nil, slots: [DEKSlot]
    ) {
        self.tree = tree
        self.volume = volume
        self.file = file
        self.zone = zone
        self.state = state
        self.flags = flags
        self.size = size
        self.generation = generation
        self.epoch = epoch
        self.slots = slots
    }

    /// The first 480 bytes; the MAC over them follows.
    package var authenticatedBytes: [UInt8] {
        precondition((1...DEKSlot.maximumCount).contains(slots.count))
        var writer = ByteWriter()
        writer.append(contentsOf: Self.magic)
        writer.append(Self.formatVersion)
        writer.append(UInt16(0))
        writer.append(features.rawValue)
        writer.append(volume)
        writer.append(file)
        writer.append(zone.rawValue)
        writer.append(state.rawValue)
        writer.append(UInt8(slots.count))
        writer.append(UInt16(0))
        writer.append(size)
        writer.append(generation)
        writer.append(epoch)
        writer.append(flags.rawValue)
        tree?.encode(into: &writer)
        writer.pad(to: 152)
        for slot in slots { slot.encode(into: &writer) }
        writer.pad(to: Self.authenticatedSize)
        return writer.bytes
    }

    /// Reads the fields of 512 bytes. The MAC is `bytes[480..<512]`.
    package init(parsing bytes: UnsafeRawBufferPointer) throws(FormatError) {
        guard bytes.count == Geometry.headerSize else { throw FormatError(.truncated, Self.object) }
        var reader = ByteReader(bytes, of: Self.object)
        try reader.expect(magic: Self.magic, version: Self.formatVersion)
        try reader.expectZeros(2)
        let features = FeatureFlags(rawValue: try reader.read())
        guard features.isSubset(of: .pageTree) else { throw FormatError(.unknownFeature, Self.object) }
        volume = try reader.readID()
        file = try reader.readID()
        zone = ZoneID(rawValue: try reader.read())
        guard let state = State(rawValue: try reader.read()) else { throw FormatError(.malformed, Self.object) }
        self.state = state
        let count = Int(try reader.read(UInt8.self))
        try reader.expectZeros(2)
        size = try reader.read()
        generation = try reader.read()
        epoch = try reader.read()
        flags = Flags(rawValue: try reader.read())
        if features.contains(.pageTree) {
            tree = try TreeRoot(from: &reader)
        } else {
            try reader.expectZeros(TreeRoot.size)
        }
        guard (1...DEKSlot.maximumCount).contains(count), size <= Geometry.maximumSize, flags.isSubset(of: .known)
        else {
            throw FormatError(.malformed, Self.object)
        }
        var slots: [DEKSlot] = []
        for _ in 0..<count { slots.append(try DEKSlot(from: &reader, of: Self.object)) }
        try DEKSlot.validate(slots, of: Self.object)
        self.slots = slots
        try reader.expectZeros(Self.authenticatedSize - reader.position)
    }

    /// Index of the slot whose DEK seals new pages and keys the header's MAC.
    package var currentIndex: Int { slots.firstIndex { $0.state == .current } ?? 0 }
}

/// Features that a reader must know to read an object rightly; a program that does not know one refuses it.
package struct FeatureFlags: OptionSet, Sendable, Equatable {
    package var rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    /// A volume of the build that does not encrypt, made for measuring (bench/build-passthrough). No other build opens it, and
    /// that build opens no other.
    package static let withoutEncryption = FeatureFlags(rawValue: 1 << 31)
    #if LETHEFS_WITHOUT_ENCRYPTION
        package static let known: FeatureFlags = [.withoutEncryption]
        package static let ofEachVolume: FeatureFlags = [.withoutEncryption]
    #else
        /// None that all objects could have is defined in format version 1.
        package static let known: FeatureFlags = []
        /// What the description of each volume must have.
        package static let ofEachVolume: FeatureFlags = []
    #endif
    /// In a keyring: work is pending, and listed (FORMAT §6).
    package static let pendingWork = FeatureFlags(rawValue: 1 << 0)
    /// In a description and in files' headers: each page is listed by a tree whose root is in the header (FORMAT §12).
    package static let pageTree = FeatureFlags(rawValue: 1 << 1)
    /// In a description: files and directories say which names are theirs (FORMAT §13).
    package static let places = FeatureFlags(rawValue: 1 << 2)
    /// What `init --integrity` adds to a volume.
    package static let integrity: FeatureFlags = [.pageTree, .places]
}
