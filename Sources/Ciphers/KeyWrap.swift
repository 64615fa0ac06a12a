import COpenSSL
import Secrets

/// AES-256 key wrap: KW (RFC 3394) for keys, KWP (RFC 5649) for names. Both are SP 800-38F.
package enum KeyWrap {
    /// Bytes that KW adds to a key.
    package static let overhead = 8
    /// Bytes that an output has to be longer than its input while OpenSSL works.
    static let roomNeeded = 16
    /// Bytes of a wrapped 256-bit key.
    package static let wrappedKeySize = SecretKey.size + overhead

    /// Wraps a 256-bit key.
    package static func wrap(_ key: borrowing SecretKey, under kek: borrowing SecretKey) throws(CipherError) -> [UInt8]
    {
        var output = [UInt8](repeating: 0, count: SecretKey.size + roomNeeded)
        let written = try key.withBytes { (plain) throws(CipherError) in
            try output.withUnsafeMutableBufferPointer { (output) throws(CipherError) in
                try run(.kw, encrypt: true, under: kek, plain, UnsafeMutableRawBufferPointer(output))
            }
        }
        guard written == wrappedKeySize else { throw CipherError(.failed) }
        return Array(output[..<written])
    }

    /// Unwraps a 256-bit key; `.notAuthentic` when the integrity check value does not fit.
    package static func unwrap(
        _ wrapped: UnsafeRawBufferPointer, under kek: borrowing SecretKey
    ) throws(CipherError) -> SecretKey {
        guard wrapped.count == wrappedKeySize else { throw CipherError(.notAuthentic) }
        // OpenSSL wants room for the whole input while it works.
        var scratch = SecretBuffer64()
        defer { scratch.wipe() }
        let written = try scratch.withMutableBytes { (bytes) throws(CipherError) in
            try run(.kw, encrypt: false, under: kek, wrapped, bytes)
        }
        guard written == SecretKey.size else { throw CipherError(.notAuthentic) }
        return scratch.withMutableBytes { bytes in
            SecretKey { $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<SecretKey.size])) }
        }
    }

    package enum Variant { case kw, kwp }

    /// One wrap or unwrap with any lengths. `output` holds at least `input.count + 16` bytes. Returns the bytes written.
    package static func run(
        _ variant: Variant, encrypt: Bool, under kek: borrowing SecretKey,
        _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
    ) throws(CipherError) -> Int {
        let context = try WrapContext(variant, encrypt: encrypt, under: kek)
        return try context.run(input, output)
    }
}

/// A cipher context with a wrapping key loaded; used by one thread at a time.
package struct WrapContext: ~Copyable, @unchecked Sendable {
    // Owned by this value alone.
    private let context: OpaquePointer
    private let encrypt: Bool

    package init(_ variant: KeyWrap.Variant, encrypt: Bool, under kek: borrowing SecretKey) throws(CipherError) {
        let algorithms = try Algorithms.required()
        guard let context = EVP_CIPHER_CTX_new() else { throw CipherError(.failed) }
        EVP_CIPHER_CTX_set_flags(context, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW)
        let cipher = variant == .kw ? algorithms.aesKW : algorithms.aesKWP
        let ready = kek.withBytes { key in
            EVP_CipherInit_ex(
                context, cipher, nil, key.baseAddress?.assumingMemoryBound(to: UInt8.self), nil, encrypt ? 1 : 0)
        }
        guard ready == 1 else {
            EVP_CIPHER_CTX_free(context)
            throw CipherError(.failed)
        }
        self.context = context
        self.encrypt = encrypt
    }

    /// Wraps or unwraps once; the context can be used again.
    package borrowing func run(
        _ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
    ) throws(CipherError) -> Int {
        precondition(output.count >= input.count + KeyWrap.roomNeeded)
        #if LETHEFS_WITHOUT_ENCRYPTION
            if encrypt { return PassThrough.wrap(input, output) }
            guard let count = PassThrough.unwrap(input, output) else { throw CipherError(.notAuthentic) }
            return count
        #else
            guard EVP_CipherInit_ex(context, nil, nil, nil, nil, encrypt ? 1 : 0) == 1 else {
                throw CipherError(.failed)
            }
            var written: Int32 = 0
            let done = EVP_CipherUpdate(
                context, output.baseAddress?.assumingMemoryBound(to: UInt8.self), &written,
                input.baseAddress?.assumingMemoryBound(to: UInt8.self), Int32(input.count))
            guard done == 1, written > 0 else {
                ERR_clear_error()
                throw CipherError(encrypt ? .failed : .notAuthentic)
            }
            return Int(written)
        #endif
    }

    deinit { EVP_CIPHER_CTX_free(context) }
}

/// 64 bytes on the stack for key material in passing; wiped by its user.
private struct SecretBuffer64 {
    private var words: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)

    mutating func withMutableBytes<R: ~Copyable, E: Error>(
        _ body: (UnsafeMutableRawBufferPointer) throws(E) -> R
    ) throws(E) -> R {
        try withUnsafeMutablePointer(to: &words) { (pointer) throws(E) in
            try body(UnsafeMutableRawBufferPointer(start: pointer, count: 64))
        }
    }

    mutating func wipe() { withMutableBytes { OPENSSL_cleanse($0.baseAddress, 64) } }
}
