import CPKCS11
import KeyManagement
import Secrets
import VolumeFormat

extension PKCS11Key {
    /// Sets CKA_DECRYPT. CKA_ENCRYPT and CKA_WRAP stay as they are; CKA_UNWRAP is switched off too, and on again where
    /// CKA_WRAP tells that it was meant to be.
    func setEnabled(_ enabled: Bool) throws(RootError) {
        try perform { (session, key) throws(Failure) in
            do throws(Failure) {
                try session.withFreshSession(writable: true) { (writer) throws(Failure) in
                    try writer.setFlag(CKA_DECRYPT, of: key.key, to: enabled)
                    try writer.setUnwrap(enabled, of: key)
                }
            } catch {
                throw error.explainedAsRefusal
            }
            // As another program would see it.
            let isEnabled = try session.withFreshSession(writable: false) { (reader) throws(Failure) in
                // A key that may still unwrap opens what was wrapped by C_WrapKey: it is not off.
                if !enabled, try reader.flag(CKA_UNWRAP, of: key.key) == true { return true }
                return try reader.isEnabled(key)
            }
            guard isEnabled == enabled else {
                throw Failure(
                    .unsupported,
                    "C_SetAttributeValue: CKA_DECRYPT or CKA_UNWRAP did not change. Switch the key with the HSM's own tools"
                )
            }
        }
    }

    /// Tries it: something is encrypted, and decrypted with no look at the attributes. (tpm2-pkcs11 1.9 takes CKA_DECRYPT and ignores it.)
    /// False only where the token says no; what is no answer is thrown.
    func isUsableAtOwner() throws(RootError) -> Bool {
        let context = KEKContext(volume: UniqueID(high: 0, low: 0), zone: .root, kekVersion: .first)
        return try perform { (session, key) throws(Failure) in
            let trial = SecretKey { _ in }
            var isRefused = false
            for algorithm in try session.mechanisms(for: key) {
                let scheme = WrapScheme(algorithm: algorithm, context: context)
                do throws(Failure) {
                    _ = try scheme.open(try scheme.seal(trial, with: key, in: session), with: key, in: session)
                    return true
                } catch {
                    if error.isUnsupportedMechanism { continue }
                    guard error.isRefusalOfUse else { throw error }
                    isRefused = true
                }
            }
            guard isRefused else { throw Failure(.unsupported, "the token offers no mechanism for this key") }
            return false
        }
    }

    func destroy() throws(RootError) {
        let selector = selector
        try perform(.once) { (session, key) throws(Failure) in
            do throws(Failure) {
                try session.withFreshSession(writable: true) { (writer) throws(Failure) in
                    try writer.destroyKey(key)
                }
            } catch {
                throw error.explainedAsRefusal
            }
            let left = try session.withFreshSession(writable: false) { (reader) throws(Failure) in
                try reader.findKey(selector)
            }
            guard left == nil else { throw Failure(.failed, "C_DestroyObject: the key is still there") }
        }
    }
}

extension Failure {
    /// The token will not use the key. NSS says KEY_TYPE_INCONSISTENT of one that is switched off. A login that is lost is no refusal.
    fileprivate var isRefusalOfUse: Bool {
        if returnValue?.rawValue == CKR_KEY_TYPE_INCONSISTENT { return true }
        return returnValue?.isLost != true && [.disabled, .denied, .pendingDeletion].contains(root.code)
    }

    /// A token that will not change a key: what the operator has to do instead.
    fileprivate var explainedAsRefusal: Failure {
        switch returnValue?.rawValue {
        case CKR_ATTRIBUTE_READ_ONLY, CKR_ACTION_PROHIBITED, CKR_TEMPLATE_INCONSISTENT, CKR_FUNCTION_NOT_SUPPORTED,
            CKR_ATTRIBUTE_TYPE_INVALID, CKR_SESSION_READ_ONLY, CKR_KEY_FUNCTION_NOT_PERMITTED:
            return recoded(
                .unsupported, "the token does not let us: use the HSM's own tools, with the rights it asks for")
        default: return self
        }
    }
}

extension Session {
    /// CKA_DECRYPT of the key, read now. A key that will not tell counts as enabled: the token enforces it then.
    func isEnabled(_ key: KeyObjects) throws(Failure) -> Bool { try flag(CKA_DECRYPT, of: key.key) ?? true }

    func setUnwrap(_ enabled: Bool, of key: KeyObjects) throws(Failure) {
        guard let now = try flag(CKA_UNWRAP, of: key.key), now != enabled else { return }
        if enabled {
            guard let other = key.encryptionKey, try flag(CKA_WRAP, of: other) == true else { return }
        }
        try setFlag(CKA_UNWRAP, of: key.key, to: enabled)
    }

    /// Destroys both halves; the one that decrypts first, since it is the one that matters.
    func destroyKey(_ key: KeyObjects) throws(Failure) {
        try destroyObject(key.key)
        if let other = key.encryptionKey, other != key.key { try destroyObject(other) }
    }
}
