import COpenSSL
import Secrets

/// AES-256-GCM (SP 800-38D) with a 96-bit IV and a 128-bit tag: a pair of OpenSSL contexts with one key loaded.
/// Used by one thread at a time; `AEADPool` sees to that.
package struct AEADContext: ~Copyable {
    package static let ivSize = 12
    package static let tagSize = 16

    private let encryptor: OpaquePointer
    private let decryptor: OpaquePointer
    private var loadedForEncryption: UInt64 = 0
    private var loadedForDecryption: UInt64 = 0

    package init() throws(CipherError) {
        let algorithms = try Algorithms.required()
        guard let encryptor = EVP_CIPHER_CTX_new() else { throw CipherError(.failed) }
        guard let decryptor = EVP_CIPHER_CTX_new() else {
            EVP_CIPHER_CTX_free(encryptor)
            throw CipherError(.failed)
        }
        guard EVP_EncryptInit_ex(encryptor, algorithms.aesGCM, nil, nil, nil) == 1,
            EVP_DecryptInit_ex(decryptor, algorithms.aesGCM, nil, nil, nil) == 1
        else {
            EVP_CIPHER_CTX_free(encryptor)
            EVP_CIPHER_CTX_free(decryptor)
            throw CipherError(.failed)
        }
        self.encryptor = encryptor
        self.decryptor = decryptor
    }

    /// Loads `key` for sealing unless it is there already.
    package mutating func loadForSealing(_ key: borrowing AEADKey) throws(CipherError) {
        guard loadedForEncryption != key.identity else { return }
        loadedForEncryption = 0
        let done = key.key.withBytes {
            EVP_EncryptInit_ex(encryptor, nil, nil, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), nil)
        }
        guard done == 1 else { throw CipherError(.failed) }
        loadedForEncryption = key.identity
    }

    /// Loads `key` for opening unless it is there already.
    package mutating func loadForOpening(_ key: borrowing AEADKey) throws(CipherError) {
        guard loadedForDecryption != key.identity else { return }
        loadedForDecryption = 0
        let done = key.key.withBytes {
            EVP_DecryptInit_ex(decryptor, nil, nil, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), nil)
        }
        guard done == 1 else { throw CipherError(.failed) }
        loadedForDecryption = key.identity
    }

    /// Seals `plaintext` into `ciphertext` (as long) and `tag` (16 bytes) under the loaded key.
    package func seal(
        iv: UnsafeRawPointer, aad: UnsafeRawBufferPointer, plaintext: UnsafeRawBufferPointer,
        ciphertext: UnsafeMutableRawPointer, tag: UnsafeMutableRawPointer
    ) throws(CipherError) {
        #if LETHEFS_WITHOUT_ENCRYPTION
            PassThrough.copy(plaintext, to: ciphertext)
            PassThrough.zero(tag, Self.tagSize)
        #else
            var length: Int32 = 0
            let out = ciphertext.assumingMemoryBound(to: UInt8.self)
            guard EVP_EncryptInit_ex(encryptor, nil, nil, nil, iv.assumingMemoryBound(to: UInt8.self)) == 1,
                EVP_EncryptUpdate(encryptor, nil, &length, aad.bound, Int32(aad.count)) == 1,
                plaintext.count == 0
                    || EVP_EncryptUpdate(encryptor, out, &length, plaintext.bound, Int32(plaintext.count)) == 1,
                EVP_EncryptFinal_ex(encryptor, out + plaintext.count, &length) == 1,
                EVP_CIPHER_CTX_ctrl(encryptor, EVP_CTRL_AEAD_GET_TAG, Int32(Self.tagSize), tag) == 1
            else { throw CipherError(.failed) }
        #endif
    }

    /// Opens `ciphertext` into `plaintext` (as long). On `.notAuthentic` the output has been zeroed.
    package func open(
        iv: UnsafeRawPointer, aad: UnsafeRawBufferPointer, ciphertext: UnsafeRawBufferPointer, tag: UnsafeRawPointer,
        plaintext: UnsafeMutableRawPointer
    ) throws(CipherError) {
        #if LETHEFS_WITHOUT_ENCRYPTION
            PassThrough.copy(ciphertext, to: plaintext)
        #else
            var length: Int32 = 0
            let out = plaintext.assumingMemoryBound(to: UInt8.self)
            let expected = UnsafeMutableRawPointer(mutating: tag)
            guard EVP_DecryptInit_ex(decryptor, nil, nil, nil, iv.assumingMemoryBound(to: UInt8.self)) == 1,
                EVP_DecryptUpdate(decryptor, nil, &length, aad.bound, Int32(aad.count)) == 1,
                ciphertext.count == 0
                    || EVP_DecryptUpdate(decryptor, out, &length, ciphertext.bound, Int32(ciphertext.count)) == 1,
                EVP_CIPHER_CTX_ctrl(decryptor, EVP_CTRL_AEAD_SET_TAG, Int32(Self.tagSize), expected) == 1
            else { throw CipherError(.failed) }
            guard EVP_DecryptFinal_ex(decryptor, out + ciphertext.count, &length) == 1 else {
                OPENSSL_cleanse(plaintext, ciphertext.count)
                ERR_clear_error()
                throw CipherError(.notAuthentic)
            }
        #endif
    }

    /// Forgets the key: OpenSSL wipes its key schedule.
    package mutating func wipe() {
        loadedForEncryption = 0
        loadedForDecryption = 0
        EVP_CIPHER_CTX_reset(encryptor)
        EVP_CIPHER_CTX_reset(decryptor)
        if let algorithms = Algorithms.fetched {
            EVP_EncryptInit_ex(encryptor, algorithms.aesGCM, nil, nil, nil)
            EVP_DecryptInit_ex(decryptor, algorithms.aesGCM, nil, nil, nil)
        }
    }

    deinit {
        EVP_CIPHER_CTX_free(encryptor)
        EVP_CIPHER_CTX_free(decryptor)
    }
}

extension UnsafeRawBufferPointer {
    fileprivate var bound: UnsafePointer<UInt8>? { baseAddress?.assumingMemoryBound(to: UInt8.self) }
}
