import Ciphers
import KeyManagement
import Secrets

/// PINs that a token has refused: none is tried twice, since a few failures lock a token. Kept as MACs under a random key, made when
/// the first one is refused.
final class RejectedPINs {
    private var codes: [String: [UInt8]] = [:]
    private var key: SecretKey?

    func check(_ pin: borrowing SecretBuffer, _ token: TokenInfo) throws(Failure) {
        guard let known = codes[name(token)], let code = code(pin) else { return }
        guard !HMACSHA256.isEqual(known, code) else {
            throw Failure(.pinIncorrect, "the token refused this PIN before; it is not tried again")
        }
    }

    func remember(_ pin: borrowing SecretBuffer, _ token: TokenInfo) throws(Failure) {
        if key == nil {
            do { key = try RandomBytes.key() } catch { throw Failure(.failed, "no random numbers") }
        }
        codes[name(token)] = code(pin)
    }

    private func name(_ token: TokenInfo) -> String { "\(token.serial)\u{0}\(token.label)" }

    private func code(_ pin: borrowing SecretBuffer) -> [UInt8]? {
        guard key != nil else { return nil }
        return pin.withBytes { bytes in
            switch key {
            case .some(let key): try? HMACSHA256.code(key: key, message: bytes)
            case nil: nil
            }
        }
    }
}
