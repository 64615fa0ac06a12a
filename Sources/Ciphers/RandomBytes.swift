import COpenSSL
import Secrets

/// OpenSSL's DRBG. It fails rather than give weak bytes.
package enum RandomBytes {
    package static func fill(_ bytes: UnsafeMutableRawBufferPointer) throws(CipherError) {
        #if LETHEFS_WITHOUT_ENCRYPTION
            PassThrough.number(bytes)
        #else
            guard bytes.count == 0 || RAND_bytes(bytes.baseAddress, Int32(bytes.count)) == 1 else {
                throw CipherError(.failed)
            }
        #endif
    }

    /// A new key from the private DRBG.
    package static func key() throws(CipherError) -> SecretKey {
        try SecretKey { (bytes) throws(CipherError) in
            guard RAND_priv_bytes(bytes.baseAddress, Int32(bytes.count)) == 1 else { throw CipherError(.failed) }
        }
    }
}
