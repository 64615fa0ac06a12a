/// Appends little-endian integers and byte strings: the one encoder of metadata.
package struct ByteWriter {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    @inlinable
    package mutating func append<I: FixedWidthInteger>(_ value: I) {
        withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
    }

    package mutating func append(_ id: UniqueID) {
        withUnsafeBytes(of: id.high.bigEndian) { append(contentsOf: $0) }
        withUnsafeBytes(of: id.low.bigEndian) { append(contentsOf: $0) }
    }

    package mutating func append(contentsOf raw: some Sequence<UInt8>) { bytes.append(contentsOf: raw) }

    /// A 16-bit length, then the bytes.
    package mutating func append(prefixed raw: [UInt8]) {
        precondition(raw.count <= UInt16.max)
        append(UInt16(raw.count))
        append(contentsOf: raw)
    }

    /// Zero bytes up to `count` in all.
    package mutating func pad(to count: Int) {
        precondition(bytes.count <= count)
        bytes.append(contentsOf: repeatElement(0, count: count - bytes.count))
    }
}
