import Secrets

extension SecretKey {
    /// Compares in a time that does not depend on the bytes.
    borrowing func isEqual(to other: borrowing SecretKey) -> Bool { other.withBytes { isEqual(to: $0) } }

    /// Compares in a time that does not depend on the bytes.
    borrowing func isEqual(to other: UnsafeRawBufferPointer) -> Bool {
        guard other.count == Self.size else { return false }
        return withBytes { bytes in
            var difference: UInt8 = 0
            for index in 0..<Self.size { difference |= bytes[index] ^ other[index] }
            return difference == 0
        }
    }
}
