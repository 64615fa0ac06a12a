import Secrets

extension SecretKey {
    /// A key of known bytes: exactly 32.
    package init(bytes: [UInt8]) {
        precondition(bytes.count == Self.size)
        self.init { $0.copyBytes(from: bytes) }
    }

    package borrowing func array() -> [UInt8] { withBytes { [UInt8]($0) } }
}
