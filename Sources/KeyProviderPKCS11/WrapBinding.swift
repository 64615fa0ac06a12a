import Ciphers
import KeyManagement
import Secrets
import VolumeFormat

/// What binds a wrap to its context where the token's mechanism has no additional data (FORMAT §6).
///
/// HMAC-SHA256 over algorithm, context and ciphertext, under a key derived from the KEK itself. Without the KEK nobody can
/// make one; with another ciphertext, algorithm or context it does not fit. opencryptoki's CBC_PAD accepted a changed
/// blob, so that nothing of this is left to the token.
enum WrapBinding {
    static let size = HMACSHA256.size
    private static let info = Array("lethefs/1 root-wrap".utf8)

    static func code(
        _ kek: borrowing SecretKey, _ algorithm: WrapAlgorithm, _ context: KEKContext, _ cipher: some Sequence<UInt8>
    ) throws(Failure) -> [UInt8] {
        do {
            let key = try HKDF.derive(from: kek, salt: [], info: info)
            return try HMACSHA256.code(key: key, message: [algorithm.rawValue] + context.encoded + cipher)
        } catch {
            throw Failure(.failed, "HMAC: \(error.code.rawValue)")
        }
    }
}
