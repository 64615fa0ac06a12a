import COpenSSL
import Secrets

/// HMAC-SHA256 (FIPS 198-1).
package enum HMACSHA256 {
    package static let size = 32

    /// The MAC of `message`.
    package static func code(
        key: borrowing SecretKey, message: UnsafeRawBufferPointer
    ) throws(CipherError) -> [UInt8] {
        try key.withBytes { (key) throws(CipherError) in try code(keyBytes: key, message: message) }
    }

    package static func code(key: borrowing SecretKey, message: [UInt8]) throws(CipherError) -> [UInt8] {
        try key.withBytes { (key) throws(CipherError) in
            try message.withUnsafeBufferPointer { (message) throws(CipherError) in
                try code(keyBytes: key, message: UnsafeRawBufferPointer(message))
            }
        }
    }

    /// The general form, for any key length; the vectors run through it.
    package static func code(
        keyBytes: UnsafeRawBufferPointer, message: UnsafeRawBufferPointer
    ) throws(CipherError) -> [UInt8] {
        #if LETHEFS_WITHOUT_ENCRYPTION
            return PassThrough.digest(message)
        #else
            let algorithms = try Algorithms.required()
            var output = [UInt8](repeating: 0, count: size)
            var length: UInt32 = 0
            // The one-shot HMAC of libcrypto; the digest was fetched under the demanded properties.
            let done = output.withUnsafeMutableBufferPointer { output in
                HMAC(
                    algorithms.sha256, keyBytes.baseAddress, Int32(keyBytes.count),
                    message.baseAddress?.assumingMemoryBound(to: UInt8.self), message.count, output.baseAddress, &length
                )
            }
            guard done != nil, length == UInt32(size) else { throw CipherError(.failed) }
            return output
        #endif
    }

    /// Compares in constant time.
    package static func isEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        left.count == right.count && CRYPTO_memcmp(left, right, left.count) == 0
    }
}
