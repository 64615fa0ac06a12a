import CPKCS11
import Ciphers
import KeyManagement
import Secrets
import VolumeFormat

/// Wraps and unwraps a KEK as *data* by one algorithm (FORMAT §6). Used on the module's thread.
///
/// C_WrapKey and C_UnwrapKey are not used: FIPS modules unwrap only into keys that cannot be read, and few tokens bind a
/// context to what they wrap.
struct WrapScheme {
    let algorithm: WrapAlgorithm
    let context: KEKContext

    private static let ivSizes: [WrapAlgorithm: Int] = [.aesGCM: 12, .aesCBCHMAC: 16]
    private var ivSize: Int { Self.ivSizes[algorithm] ?? 0 }
    private var hasMAC: Bool { algorithm != .aesGCM }
    private var kind: KeyObjects.Kind { algorithm == .aesGCM || algorithm == .aesCBCHMAC ? .aes : .rsa }

    /// Encrypts `kek` and returns the blob.
    func seal(_ kek: borrowing SecretKey, with key: KeyObjects, in session: Session) throws(Failure) -> [UInt8] {
        var blob = try randomBytes(ivSize)
        let mechanism = mechanism(iv: blob)
        blob += try kek.withBytes { (bytes) throws(Failure) in try session.encrypt(bytes, mechanism, key) }
        return hasMAC ? blob + (try WrapBinding.code(kek, algorithm, context, blob)) : blob
    }

    /// Decrypts a blob. Throws `.notAuthentic` for anything but what `seal` made for this context.
    func open(_ blob: [UInt8], with key: KeyObjects, in session: Session) throws(Failure) -> SecretKey {
        guard key.kind == kind, blob.count <= RootWrap.maximumBlob else { throw notAuthentic("another kind of key") }
        let macSize = hasMAC ? WrapBinding.size : 0
        guard blob.count > ivSize + macSize else { throw notAuthentic("too short") }
        let sealed = blob.dropLast(macSize)
        let plain = try decrypt(
            Array(sealed.dropFirst(ivSize)), mechanism(iv: Array(sealed.prefix(ivSize))), key, session)
        guard plain.buffer.count == SecretKey.size else { throw notAuthentic("another length") }
        let kek = SecretKey { output in plain.buffer.withBytes { output.copyMemory(from: $0) } }
        if hasMAC {
            let code = try WrapBinding.code(kek, algorithm, context, sealed)
            guard HMACSHA256.isEqual(code, Array(blob.suffix(macSize))) else { throw notAuthentic("MAC") }
        }
        return kek
    }

    /// Whether the key works at all now: it encrypts and decrypts random bytes.
    func works(with key: KeyObjects, in session: Session) throws(Failure) {
        let sample = try randomKey()
        let mechanism = mechanism(iv: try randomBytes(ivSize))
        let cipher = try sample.withBytes { (bytes) throws(Failure) in
            try session.encrypt(bytes, mechanism, key)
        }
        var reachedData = false
        let plain = try session.decrypt(cipher, mechanism, key.key, reachedData: &reachedData)
        guard plain.withBytes({ sample.isEqual(to: $0) }) else {
            throw Failure(.failed, "the token does not decrypt what it encrypted")
        }
    }

    private func decrypt(
        _ cipher: [UInt8], _ mechanism: Mechanism, _ key: KeyObjects, _ session: Session
    ) throws(Failure) -> SharedSecret {
        var reachedData = false
        do {
            return SharedSecret(try session.decrypt(cipher, mechanism, key.key, reachedData: &reachedData))
        } catch {
            guard reachedData, let value = error.returnValue else { throw error }
            guard value.isAmbiguousForDecryption else { throw error }
            // GENERAL_ERROR and its like: if the key does its work on other data, and fails on these once more, then
            // these are wrong. In another session: some tokens leave the failed operation active.
            do throws(Failure) {
                return try session.withFreshSession(writable: false) { (other) throws(Failure) in
                    try works(with: key, in: other)
                    return try again(cipher, mechanism, key, other)
                }
            } catch let trial {
                throw trial.isRecoverable || trial.root.code == .notAuthentic ? trial : error
            }
        }
    }

    /// The second attempt, on a token that has just shown that it works.
    private func again(
        _ cipher: [UInt8], _ mechanism: Mechanism, _ key: KeyObjects, _ session: Session
    ) throws(Failure) -> SharedSecret {
        var reachedData = false
        do throws(Failure) {
            return SharedSecret(try session.decrypt(cipher, mechanism, key.key, reachedData: &reachedData))
        } catch {
            guard reachedData, let value = error.returnValue, value.isAmbiguousForDecryption else { throw error }
            throw Failure(.notAuthentic, error.root.detail)
        }
    }

    private func mechanism(iv: [UInt8]) -> Mechanism {
        switch algorithm {
        case .aesGCM: .gcm(iv: iv, additionalData: context.encoded)
        case .rsaOAEPSHA256: .oaepSHA256
        case .rsaOAEPSHA1: .oaepSHA1
        // Never reached with a split wrap: its halves have algorithms of their own.
        case .aesCBCHMAC, .split: .cbc(iv: iv)
        }
    }

    private func randomBytes(_ count: Int) throws(Failure) -> [UInt8] {
        do { return try RandomBytes.array(count) } catch { throw Failure(.failed, "no random numbers") }
    }

    private func randomKey() throws(Failure) -> SecretKey {
        do { return try RandomBytes.key() } catch { throw Failure(.failed, "no random numbers") }
    }

    private func notAuthentic(_ detail: String) -> Failure { Failure(.notAuthentic, "wrapped KEK: \(detail)") }
}
