import Ciphers
import KeyManagement
import Secrets

/// PINs that a token has refused: none is tried twice, since a few failures lock a token. Kept as MACs under a random key.
final class RejectedPINs {
    private var codes: [String: [UInt8]] = [:]
    private let key: SecretKey

    init() throws(RootError) {
        do { key = try RandomBytes.key() } catch { throw RootError(.failed, "no random numbers") }
    }

    func check(_ pin: borrowing SecretBuffer, _ token: TokenInfo) throws(Failure) {
        guard let known = codes[name(token)], let code = code(pin) else { return }
        guard !HMACSHA256.isEqual(known, code) else {
            throw Failure(.pinIncorrect, "the token refused this PIN before; it is not tried again")
        }
    }

    func remember(_ pin: borrowing SecretBuffer, _ token: TokenInfo) { codes[name(token)] = code(pin) }

    private func name(_ token: TokenInfo) -> String { "\(token.serial)\u{0}\(token.label)" }

    private func code(_ pin: borrowing SecretBuffer) -> [UInt8]? {
        pin.withBytes { bytes in try? HMACSHA256.code(key: key, message: bytes) }
    }
}
