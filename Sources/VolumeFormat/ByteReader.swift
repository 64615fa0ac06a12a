/// Reads little-endian integers and byte strings from untrusted bytes; every read is bounded.
package struct ByteReader {
    private let bytes: UnsafeRawBufferPointer
    package private(set) var position = 0
    private let object: StaticString

    /// `bytes` must outlive the reader; `object` names what is read, for the error.
    package init(_ bytes: UnsafeRawBufferPointer, of object: StaticString) {
        self.bytes = bytes
        self.object = object
    }

    package var remaining: Int { bytes.count - position }

    package mutating func read<I: FixedWidthInteger>(_: I.Type = I.self) throws(FormatError) -> I {
        let size = MemoryLayout<I>.size
        guard remaining >= size else { throw FormatError(.truncated, object) }
        let value = bytes.loadUnaligned(fromByteOffset: position, as: I.self)
        position += size
        return I(littleEndian: value)
    }

    package mutating func readID() throws(FormatError) -> UniqueID {
        let high: UInt64 = try read()
        let low: UInt64 = try read()
        return UniqueID(high: high.byteSwapped, low: low.byteSwapped)
    }

    package mutating func readBytes(_ count: Int) throws(FormatError) -> [UInt8] {
        guard count >= 0, remaining >= count else { throw FormatError(.truncated, object) }
        defer { position += count }
        return [UInt8](bytes[position..<position + count])
    }

    /// A 16-bit length of at most `limit`, then the bytes.
    package mutating func readPrefixed(limit: Int) throws(FormatError) -> [UInt8] {
        let count = Int(try read(UInt16.self))
        guard count <= limit else { throw FormatError(.malformed, object) }
        return try readBytes(count)
    }

    /// What every object begins with: its magic, and a version of the format that is known.
    package mutating func expect(magic: [UInt8], version: UInt16) throws(FormatError) {
        guard try readBytes(magic.count) == magic else { throw FormatError(.notMagic, object) }
        guard try read(UInt16.self) == version else { throw FormatError(.unknownVersion, object) }
    }

    /// Fails unless the next `count` bytes are zero.
    package mutating func expectZeros(_ count: Int) throws(FormatError) {
        guard try readBytes(count).allSatisfy({ $0 == 0 }) else { throw FormatError(.malformed, object) }
    }

    package func expectEnd() throws(FormatError) {
        guard remaining == 0 else { throw FormatError(.malformed, object) }
    }
}
