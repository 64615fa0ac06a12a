/// 128 random bits that name a volume, a file or a directory for ever.
package struct UniqueID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var high: UInt64
    package var low: UInt64

    package static let size = 16

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Canonical form: 8-4-4-4-12 hexadecimal digits. The bytes on disk are big-endian, in the same order.
    package var description: String {
        let digits = Self.hex(high) + Self.hex(low)
        let cuts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)]
        return cuts.map { String(digits[digits.index(at: $0.0)..<digits.index(at: $0.1)]) }.joined(separator: "-")
    }

    /// Parses the canonical form.
    package init?(_ text: String) {
        let digits = text.filter { $0 != "-" }
        guard digits.count == 32, let high = UInt64(digits.prefix(16), radix: 16),
            let low = UInt64(digits.suffix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
        // Dashes elsewhere, or a sign before the digits.
        guard description == text.lowercased() else { return nil }
    }

    /// In the order of the bytes on disk.
    package static func < (left: UniqueID, right: UniqueID) -> Bool { (left.high, left.low) < (right.high, right.low) }

    private static func hex(_ value: UInt64) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: 16 - text.count) + text
    }
}

extension String {
    fileprivate func index(at offset: Int) -> Index { index(startIndex, offsetBy: offset) }
}

/// A zone of a volume; zone 0 is the volume's root.
package struct ZoneID: RawRepresentable, Hashable, Sendable {
    package var rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let root = ZoneID(rawValue: 0)
}

/// Version of a CMK, KEK or DEK within its line, from 1. 0 means none.
package struct KeyVersion: RawRepresentable, Hashable, Comparable, Sendable {
    package var rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let first = KeyVersion(rawValue: 1)
    package static func < (left: KeyVersion, right: KeyVersion) -> Bool { left.rawValue < right.rawValue }
}
