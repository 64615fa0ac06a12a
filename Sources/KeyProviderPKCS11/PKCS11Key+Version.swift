import CPKCS11
import Ciphers
import KeyManagement
import Secrets
import VolumeFormat

/// Version keys: an AES key in the CMK's token for each KEK version, destroyed with it (FORMAT §6).
extension PKCS11Key {
    func wrapVersion(_ kek: borrowing SecretKey, context: KEKContext) throws(RootError) -> RootWrap {
        let second = try Self.newKey()
        let id: [UInt8]
        do { id = try RandomBytes.array(SplitWrap.idSize) } catch { throw RootError(.failed, "no random numbers") }
        let first = kek.exclusiveOr(second)
        guard let version = try wrapUnderVersionKey(second, id: id, context: context) else {
            return try wrap(kek, context: context)
        }
        let split = SplitWrap(id: id, root: try wrap(first, context: context.rootHalf), version: version).wrap
        // Both halves were tried one by one; this tries what a mount will do.
        guard try unwrap(split, context: context).isEqual(to: kek) else {
            throw RootError(.failed, "the token does not decrypt what it encrypted")
        }
        return split
    }

    private static func newKey() throws(RootError) -> SecretKey {
        do { return try RandomBytes.key() } catch { throw RootError(.failed, "no random numbers") }
    }

    /// Generates the version key and wraps `half` with it; `nil` where the token makes no such keys for this user.
    private func wrapUnderVersionKey(
        _ half: borrowing SecretKey, id: [UInt8], context: KEKContext
    ) throws(RootError) -> RootWrap? {
        let secret = SharedKey(half.copy())
        let label = Array(context.versionKeyLabel.utf8)
        return try perform(.once) { (session, _) throws(Failure) -> RootWrap? in
            guard let algorithm = try session.versionKeyAlgorithm() else { return nil }
            do throws(Failure) {
                return try session.withFreshSession(writable: true) { (writer) throws(Failure) in
                    let key = try writer.generateAES(label: label, id: id)
                    do throws(Failure) {
                        try writer.verifyProtection(of: key)
                        let scheme = WrapScheme(algorithm: algorithm, context: context.versionHalf)
                        let blob = try scheme.seal(secret.key, with: key, in: writer)
                        guard try scheme.open(blob, with: key, in: writer).isEqual(to: secret.key) else {
                            throw Failure(.failed, "the token does not decrypt what it encrypted")
                        }
                        return RootWrap(algorithm: algorithm, blob: blob)
                    } catch {
                        try? writer.destroyKey(key)
                        throw error
                    }
                }
            } catch {
                guard error.forbidsNewKeys else { throw error }
                return nil
            }
        }
    }

    func unwrapSplit(_ wrap: RootWrap, context: KEKContext) throws(RootError) -> SecretKey {
        let split: SplitWrap
        do { split = try SplitWrap(parsing: wrap) } catch { throw RootError(.notAuthentic, "wrapped KEK: malformed") }
        let selector = KeySelector(label: Array(context.versionKeyLabel.utf8), id: split.id, type: .secretKey)
        return try perform { (session, key) throws(Failure) -> SecretKey in
            guard try session.isEnabled(key) else { throw Failure(.disabled, "CKA_DECRYPT is false") }
            let first = try WrapScheme(algorithm: split.root.algorithm, context: context.rootHalf)
                .open(split.root.blob, with: key, in: session)
            let versionKey = try session.requireKey(
                selector, gone: .versionDestroyed, named: "version key of this KEK version")
            let second = try WrapScheme(algorithm: split.version.algorithm, context: context.versionHalf)
                .open(split.version.blob, with: versionKey, in: session)
            return first.exclusiveOr(second)
        }
    }

    func destroyVersionKeys(_ context: KEKContext, except kept: [[UInt8]]) throws(RootError) -> Int {
        let label = Array(context.versionKeyLabel.utf8)
        return try perform(.once) { (session, _) throws(Failure) -> Int in
            let destroyed = try session.withFreshSession(writable: true) { (writer) throws(Failure) -> Int in
                let objects = try writer.versionKeys(label, except: kept)
                for object in objects { try writer.destroyObject(object) }
                return objects.count
            }
            // As another program would see it.
            let left = try session.withFreshSession(writable: false) { (reader) throws(Failure) in
                try reader.versionKeys(label, except: kept).count
            }
            guard left == 0 else { throw Failure(.failed, "C_DestroyObject: a version key is still there") }
            return destroyed
        }
    }
}

extension Session {
    private static let maximumVersionKeys = 1024

    func versionKeys(_ label: [UInt8], except kept: [[UInt8]]) throws(Failure) -> [CK_OBJECT_HANDLE] {
        var template = AttributeTemplate()
        template.add(CKA_CLASS, number: CKO_SECRET_KEY)
        template.add(CKA_LABEL, bytes: label)
        var found: [CK_OBJECT_HANDLE] = []
        for object in try find(template, maximum: Self.maximumVersionKeys) {
            if let id = try attribute(CKA_ID, of: object), kept.contains(id) { continue }
            found.append(object)
        }
        return found
    }

    /// How a version key of this token would wrap; `nil` where the token generates no AES keys that encrypt.
    func versionKeyAlgorithm() throws(Failure) -> WrapAlgorithm? {
        let both = CKF_ENCRYPT | CKF_DECRYPT
        guard try cryptoki.mechanism(CKM_AES_KEY_GEN, CKF_GENERATE, in: slot) != nil else { return nil }
        if try cryptoki.mechanism(CKM_AES_GCM, both, in: slot) != nil { return .aesGCM }
        return try cryptoki.mechanism(CKM_AES_CBC, both, in: slot) != nil ? .aesCBCHMAC : nil
    }
}

extension Failure {
    /// The token makes no AES keys, or not for this user: then a KEK is wrapped by the CMK alone, and the wrap says so.
    fileprivate var forbidsNewKeys: Bool {
        guard let value = returnValue?.rawValue else { return root.code == .unsupported }
        return [
            CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID, CKR_FUNCTION_NOT_SUPPORTED, CKR_TOKEN_WRITE_PROTECTED,
            CKR_SESSION_READ_ONLY, CKR_ACTION_PROHIBITED, CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_VALUE_INVALID,
            CKR_ATTRIBUTE_TYPE_INVALID, CKR_KEY_FUNCTION_NOT_PERMITTED,
        ].contains(value)
    }
}
