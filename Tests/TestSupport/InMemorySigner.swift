import COpenSSL
import Ciphers
import KeyManagement
import Synchronization

/// A signing key in this process. Not for any use but tests.
package final class InMemorySigner: Signer, @unchecked Sendable {
    package let publicKey: [UInt8]
    // Used by one call at a time: OpenSSL's key is immutable.
    private let key: OpaquePointer
    private let refusal = Mutex<RootError.Code?>(nil)

    package init() throws {
        guard let context = EVP_PKEY_CTX_new_from_name(nil, "EC", nil) else { throw CipherError(.failed) }
        defer { EVP_PKEY_CTX_free(context) }
        var made: OpaquePointer?
        guard EVP_PKEY_keygen_init(context) == 1, EVP_PKEY_CTX_set_group_name(context, "P-256") == 1,
            EVP_PKEY_generate(context, &made) == 1, let made
        else { throw CipherError(.failed) }
        key = made
        var memory: UnsafeMutablePointer<UInt8>?
        let count = i2d_PUBKEY(made, &memory)
        guard count > 0, let memory else { throw CipherError(.failed) }
        defer { CRYPTO_free(memory, nil, 0) }
        publicKey = Array(UnsafeBufferPointer(start: memory, count: Int(count)))
    }

    /// What every call answers from now on; `nil` for service as usual.
    package func refuse(_ code: RootError.Code?) { refusal.withLock { $0 = code } }

    package func sign(_ message: [UInt8]) throws(RootError) -> Signature {
        if let code = refusal.withLock({ $0 }) { throw RootError(code, "test") }
        guard let context = EVP_MD_CTX_new() else { throw RootError(.failed, "test") }
        defer { EVP_MD_CTX_free(context) }
        var bytes = [UInt8](repeating: 0, count: 128)
        var count = bytes.count
        guard EVP_DigestSignInit_ex(context, nil, "SHA256", nil, nil, key, nil) == 1,
            EVP_DigestSign(context, &bytes, &count, message, message.count) == 1,
            let keyID = try? Signature.keyID(of: publicKey)
        else { throw RootError(.failed, "test") }
        return Signature(keyID: keyID, bytes: Array(bytes[..<count]))
    }

    deinit { EVP_PKEY_free(key) }
}
