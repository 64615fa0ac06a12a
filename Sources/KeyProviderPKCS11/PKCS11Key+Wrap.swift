import CPKCS11
import KeyManagement
import Secrets
import VolumeFormat

extension PKCS11Key {
    func wrap(_ kek: borrowing SecretKey, context: KEKContext) throws(RootError) -> RootWrap {
        // The request may outlive this call: it has a copy of its own, wiped with the request.
        let secret = SharedKey(kek.copy())
        return try perform { (session, key) throws(Failure) in
            guard try session.isEnabled(key) else { throw Failure(.disabled, "CKA_DECRYPT is false") }
            var failure = Failure(.unsupported, "the token offers no mechanism for this key")
            for algorithm in try session.mechanisms(for: key) {
                let scheme = WrapScheme(algorithm: algorithm, context: context)
                do throws(Failure) {
                    let blob = try scheme.seal(secret.key, with: key, in: session)
                    // A wrap that cannot be undone would lose a volume: it counts only when it was.
                    let back = try scheme.open(blob, with: key, in: session)
                    guard back.withBytes({ secret.key.isEqual(to: $0) }) else {
                        throw Failure(.failed, "the token does not decrypt what it encrypted")
                    }
                    return RootWrap(algorithm: algorithm, blob: blob)
                } catch {
                    // Only "not this mechanism" leads to the next; an outage does not change the algorithm.
                    guard error.isUnsupportedMechanism else { throw error }
                    failure = error
                }
            }
            throw failure.recoded(.unsupported)
        }
    }

    func unwrap(_ wrap: RootWrap, context: KEKContext) throws(RootError) -> SecretKey {
        if wrap.algorithm == .split { return try unwrapSplit(wrap, context: context) }
        return try perform { (session, key) throws(Failure) -> SecretKey in
            // tpm2-pkcs11 keeps on decrypting with a key that says no; so the refusal is ours.
            guard try session.isEnabled(key) else { throw Failure(.disabled, "CKA_DECRYPT is false") }
            do throws(Failure) {
                return try WrapScheme(algorithm: wrap.algorithm, context: context).open(
                    wrap.blob, with: key, in: session)
            } catch {
                // Switched off between the two calls: NSS says KEY_TYPE_INCONSISTENT.
                guard error.returnValue?.rawValue == CKR_KEY_TYPE_INCONSISTENT, try !session.isEnabled(key) else {
                    throw error
                }
                throw error.recoded(.disabled)
            }
        }
    }
}

/// A key that a request owns.
final class SharedKey: Sendable {
    let key: SecretKey
    init(_ key: consuming SecretKey) { self.key = key }
}

extension Failure {
    /// The token has no such mechanism, or not with these parameters (SoftHSM2 refuses OAEP with SHA-256 by
    /// ARGUMENTS_BAD).
    var isUnsupportedMechanism: Bool {
        guard let value = returnValue?.rawValue else { return false }
        return [
            CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD, CKR_FUNCTION_NOT_SUPPORTED,
        ].contains(value)
    }
}

extension Session {
    /// Algorithms worth trying for a key, the best first, as far as the token's list of mechanisms tells.
    func mechanisms(for key: KeyObjects) throws(Failure) -> [WrapAlgorithm] {
        let both = CKF_ENCRYPT | CKF_DECRYPT
        switch key.kind {
        case .rsa:
            // The list does not tell which hashes OAEP takes.
            let isOffered = try cryptoki.mechanism(CKM_RSA_PKCS_OAEP, CKF_DECRYPT, in: slot) != nil
            return isOffered ? [.rsaOAEPSHA256, .rsaOAEPSHA1] : []
        case .aes:
            if try cryptoki.mechanism(CKM_AES_GCM, both, in: slot) != nil { return [.aesGCM] }
            return try cryptoki.mechanism(CKM_AES_CBC, both, in: slot) != nil ? [.aesCBCHMAC] : []
        }
    }

    /// The same, and a trial encryption where only that tells.
    func algorithms(for key: KeyObjects) throws(Failure) -> [WrapAlgorithm] {
        let candidates = try mechanisms(for: key)
        guard key.kind == .rsa, candidates.first == .rsaOAEPSHA256 else {
            return candidates
        }
        let zeros = [UInt8](repeating: 0, count: SecretKey.size)
        let trial = zeros.withUnsafeBytes { bytes in
            Result { () throws(Failure) in try encrypt(bytes, .oaepSHA256, key) }
        }
        if case .failure(let failure) = trial, failure.isUnsupportedMechanism { return Array(candidates.dropFirst()) }
        return candidates
    }
}
