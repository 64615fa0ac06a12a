/// One DEK of a file or directory, wrapped: 72 bytes (FORMAT §4).
package struct DEKSlot: Equatable, Sendable {
    package enum State: UInt8, Sendable {
        /// New pages are sealed with it.
        case current = 0
        /// Pages sealed with it may still exist; none is added.
        case retiring = 1
    }

    package var version: KeyVersion
    package var kekVersion: KeyVersion
    /// Seconds since 1970, when the DEK was made: its cryptoperiod starts here.
    package var created: UInt64
    /// Upper bound on GCM invocations under this DEK; stored ahead of their use (SP 800-38D §8.3, §9.1).
    package var invocationBound: UInt64
    package var state: State
    /// AES-256-KW of the DEK, 40 bytes.
    package var wrapped: WrappedKey

    package static let size = 72
    /// Slots in a header: the current DEK and those still being retired.
    package static let maximumCount = 4

    package init(
        version: KeyVersion, kekVersion: KeyVersion, created: UInt64, invocationBound: UInt64, state: State,
        wrapped: WrappedKey
    ) {
        self.version = version
        self.kekVersion = kekVersion
        self.created = created
        self.invocationBound = invocationBound
        self.state = state
        self.wrapped = wrapped
    }

    func encode(into writer: inout ByteWriter) {
        writer.append(version.rawValue)
        writer.append(kekVersion.rawValue)
        writer.append(created)
        writer.append(invocationBound)
        writer.append(state.rawValue)
        writer.pad(to: writer.bytes.count + 7)
        writer.append(contentsOf: wrapped.bytes)
    }

    init(from reader: inout ByteReader, of object: StaticString) throws(FormatError) {
        version = KeyVersion(rawValue: try reader.read())
        kekVersion = KeyVersion(rawValue: try reader.read())
        created = try reader.read()
        invocationBound = try reader.read()
        guard let state = State(rawValue: try reader.read()) else { throw FormatError(.malformed, object) }
        self.state = state
        try reader.expectZeros(7)
        wrapped = try WrappedKey(from: &reader)
        guard (1...PageLeader.maximumVersion).contains(version.rawValue), kekVersion.rawValue > 0 else {
            throw FormatError(.malformed, object)
        }
    }

    /// The slots of one object: versions differ, and exactly one is current.
    static func validate(_ slots: [DEKSlot], of object: StaticString) throws(FormatError) {
        guard Set(slots.map(\.version)).count == slots.count, slots.count(where: { $0.state == .current }) == 1 else {
            throw FormatError(.malformed, object)
        }
    }
}

/// A 256-bit key under AES-KW: 40 bytes, held inline.
package struct WrappedKey: Equatable, Sendable {
    package static let size = 40
    private var words: (UInt64, UInt64, UInt64, UInt64, UInt64)

    /// `bytes` is exactly 40 long.
    package init(_ bytes: [UInt8]) {
        precondition(bytes.count == Self.size)
        words = bytes.withUnsafeBytes { $0.loadUnaligned(as: (UInt64, UInt64, UInt64, UInt64, UInt64).self) }
    }

    init(from reader: inout ByteReader) throws(FormatError) { self.init(try reader.readBytes(Self.size)) }

    package func withBytes<R: ~Copyable, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        var copy = words
        return try withUnsafePointer(to: &copy) { (pointer) throws(E) in
            try body(UnsafeRawBufferPointer(start: pointer, count: Self.size))
        }
    }

    package var bytes: [UInt8] { withBytes { [UInt8]($0) } }

    package static func == (left: WrappedKey, right: WrappedKey) -> Bool { left.words == right.words }
}
