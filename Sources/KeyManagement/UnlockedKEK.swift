import Ciphers
import Secrets
import VolumeFormat

/// One KEK version in memory: the key that wraps DEKs, and the key that authenticates the keyring (FORMAT §6).
/// Both are derived from the KEK, which itself is not kept.
package final class UnlockedKEK: Sendable {
    package let version: KeyVersion
    private let wrapKey: SecretKey
    private let authenticationKey: SecretKey

    package init(version: KeyVersion, kek: borrowing SecretKey, context: KEKContext) throws(CipherError) {
        self.version = version
        let salt = KEKContext(volume: context.volume, zone: context.zone, kekVersion: version).encoded
        wrapKey = try HKDF.derive(from: kek, salt: salt, info: Array("lethefs/1 kek-wrap".utf8))
        authenticationKey = try HKDF.derive(from: kek, salt: salt, info: Array("lethefs/1 kek-mac".utf8))
    }

    package func wrap(_ dek: borrowing SecretKey) throws(CipherError) -> WrappedKey {
        WrappedKey(try KeyWrap.wrap(dek, under: wrapKey))
    }

    package func unwrap(_ wrapped: WrappedKey) throws(CipherError) -> SecretKey {
        try wrapped.withBytes { (bytes) throws(CipherError) in try KeyWrap.unwrap(bytes, under: wrapKey) }
    }

    package func code(for message: [UInt8]) throws(CipherError) -> [UInt8] {
        try HMACSHA256.code(key: authenticationKey, message: message)
    }
}
