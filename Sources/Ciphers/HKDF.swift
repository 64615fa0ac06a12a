import COpenSSL
import Secrets

/// HKDF-SHA256 (RFC 5869, SP 800-56C): one key for one use from one parent.
package enum HKDF {
    /// Derives 256 bits from `key` with the given salt and info.
    package static func derive(
        from key: borrowing SecretKey, salt: [UInt8], info: [UInt8]
    ) throws(CipherError) -> SecretKey {
        try SecretKey { (output) throws(CipherError) in
            try key.withBytes { (parent) throws(CipherError) in
                try derive(from: parent, salt: salt, info: info, into: output)
            }
        }
    }

    /// The general form, for any lengths; the vectors run through it.
    package static func derive(
        from parent: UnsafeRawBufferPointer, salt: [UInt8], info: [UInt8], into output: UnsafeMutableRawBufferPointer
    ) throws(CipherError) {
        #if LETHEFS_WITHOUT_ENCRYPTION
            PassThrough.derive(parent, output)
        #else
            let algorithms = try Algorithms.required()
            guard let context = EVP_KDF_CTX_new(algorithms.hkdf) else { throw CipherError(.failed) }
            defer { EVP_KDF_CTX_free(context) }
            var digest = Array("SHA256\0".utf8CString.map(UInt8.init(bitPattern:)).dropLast())
            var salt = salt
            var info = info
            let done = digest.withUnsafeMutableBufferPointer { digest in
                salt.withUnsafeMutableBytes { salt in
                    info.withUnsafeMutableBytes { info in
                        let parameters = [
                            OSSL_PARAM_construct_utf8_string(
                                Name.digest.pointer,
                                UnsafeMutableRawPointer(digest.baseAddress)?.assumingMemoryBound(to: CChar.self), 0),
                            OSSL_PARAM_construct_octet_string(
                                Name.key.pointer, UnsafeMutableRawPointer(mutating: parent.baseAddress), parent.count),
                            OSSL_PARAM_construct_octet_string(Name.salt.pointer, salt.baseAddress, salt.count),
                            OSSL_PARAM_construct_octet_string(Name.info.pointer, info.baseAddress, info.count),
                            OSSL_PARAM_construct_end(),
                        ]
                        return EVP_KDF_derive(context, output.baseAddress, output.count, parameters)
                    }
                }
            }
            guard done == 1 else { throw CipherError(.failed) }
        #endif
    }
}

/// Parameter names of EVP_KDF-HKDF(7). OpenSSL keeps their addresses, so they have to last: a Swift string's do not.
private enum Name {
    static let digest: StaticString = "digest"
    static let key: StaticString = "key"
    static let salt: StaticString = "salt"
    static let info: StaticString = "info"
}

extension StaticString {
    fileprivate var pointer: UnsafePointer<CChar> { UnsafeRawPointer(utf8Start).assumingMemoryBound(to: CChar.self) }
}
