import COpenSSL
import Glibc

/// The algorithms this program uses, fetched once from OpenSSL 3's providers.
///
/// `LETHEFS_OPENSSL_PROPERTIES` (for example `fips=yes`) is the property query of every fetch: with it, an algorithm
/// that no validated provider offers is an error, never a silent fall-back.
package struct Algorithms: @unchecked Sendable {
    // EVP_CIPHER, EVP_MD, EVP_MAC and EVP_KDF are immutable and reference-counted in OpenSSL: shared for the process's life.
    let aesGCM: OpaquePointer
    let aesKW: OpaquePointer
    let aesKWP: OpaquePointer
    let hmac: OpaquePointer
    let hkdf: OpaquePointer
    let sha256: OpaquePointer

    /// Fetched at first use. `nil` when one is missing under the demanded properties.
    package static let fetched: Algorithms? = Algorithms()

    /// The property query in force; empty for none.
    package static var propertyQuery: String { getenv("LETHEFS_OPENSSL_PROPERTIES").map { String(cString: $0) } ?? "" }

    static func required() throws(CipherError) -> Algorithms {
        guard let fetched else { throw CipherError(.unavailable) }
        return fetched
    }

    private init?() {
        let properties = Self.propertyQuery
        guard let aesGCM = EVP_CIPHER_fetch(nil, "AES-256-GCM", properties),
            let aesKW = EVP_CIPHER_fetch(nil, "AES-256-WRAP", properties),
            let aesKWP = EVP_CIPHER_fetch(nil, "AES-256-WRAP-PAD", properties),
            let hmac = EVP_MAC_fetch(nil, "HMAC", properties),
            let hkdf = EVP_KDF_fetch(nil, "HKDF", properties),
            let sha256 = EVP_MD_fetch(nil, "SHA256", properties)
        else { return nil }
        self.aesGCM = aesGCM
        self.aesKW = aesKW
        self.aesKWP = aesKWP
        self.hmac = hmac
        self.hkdf = hkdf
        self.sha256 = sha256
    }
}
