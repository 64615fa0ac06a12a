import COpenSSL
import Secrets

/// Several keys derived at once: consecutive 32-byte pieces of one HKDF-SHA256 output (RFC 5869 allows any length),
/// on their way into locked memory. Wiped when let go.
package struct DerivedKeys: ~Copyable {
    private let bytes: UnsafeMutableRawBufferPointer

    /// Derives `count` keys from `parent`; `info` and `version` say for what.
    package init(
        _ count: Int, from parent: borrowing SecretKey, salt: (UInt64, UInt64), info: StaticString, version: UInt32
    ) throws(CipherError) {
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: count * SecretKey.size, alignment: 16)
        let label = info.withUTF8Buffer { [UInt8]($0) } + withUnsafeBytes(of: version.littleEndian) { [UInt8]($0) }
        let salt = withUnsafeBytes(of: (salt.0.bigEndian, salt.1.bigEndian)) { [UInt8]($0) }
        do {
            try parent.withBytes { (parent) throws(CipherError) in
                try HKDF.derive(from: parent, salt: salt, info: label, into: output)
            }
        } catch {
            OPENSSL_cleanse(output.baseAddress, output.count)
            output.deallocate()
            throw error
        }
        bytes = output
    }

    /// The key at `index`.
    package borrowing func key(_ index: Int) -> SecretKey {
        let piece = UnsafeRawBufferPointer(rebasing: bytes[(index * SecretKey.size)..<((index + 1) * SecretKey.size)])
        return SecretKey { $0.copyMemory(from: piece) }
    }

    deinit {
        OPENSSL_cleanse(bytes.baseAddress, bytes.count)
        bytes.deallocate()
    }
}
