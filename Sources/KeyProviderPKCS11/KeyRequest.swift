import CPKCS11
import KeyManagement

/// The key that `create` is asked for.
struct KeyRequest: Sendable {
    var label: [UInt8]
    var id: [UInt8]
    var type: PKCS11URI.ObjectType?
}

extension Session {
    /// Generates a CMK, checks what the token made of it, and tells its class. A key that is not as asked for is
    /// destroyed at once.
    func createKey(_ request: KeyRequest) throws(Failure) -> PKCS11URI.ObjectType {
        for selector in [KeySelector(label: request.label), KeySelector(id: request.id)] {
            let isTaken: Bool
            do throws(Failure) { isTaken = try findKey(selector) != nil } catch {
                guard [.keyAmbiguous, .unsupported].contains(error.root.code) else { throw error }
                isTaken = true
            }
            guard !isTaken else { throw Failure(.denied, "the token holds a key of that name already") }
        }
        return try withFreshSession(writable: true) { (writer) throws(Failure) in
            let key = try writer.generate(request)
            do throws(Failure) {
                try writer.verifyProtection(of: key)
            } catch {
                try? writer.destroyKey(key)
                throw error
            }
            return key.kind == .aes ? .secretKey : .privateKey
        }
    }

    /// AES where the token has GCM; else RSA for OAEP; else AES with CBC and our own MAC.
    private func generate(_ request: KeyRequest) throws(Failure) -> KeyObjects {
        let both = CKF_ENCRYPT | CKF_DECRYPT
        let hasAES = try cryptoki.mechanism(CKM_AES_KEY_GEN, CKF_GENERATE, in: slot) != nil
        let hasGCM = try cryptoki.mechanism(CKM_AES_GCM, both, in: slot) != nil && hasAES
        let hasCBC = try cryptoki.mechanism(CKM_AES_CBC, both, in: slot) != nil && hasAES
        if request.type != .privateKey, hasGCM || (request.type == .secretKey && hasCBC) {
            return try generateAES(label: request.label, id: request.id)
        }
        if request.type != .secretKey,
            let info = try cryptoki.mechanism(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR, in: slot),
            try cryptoki.mechanism(CKM_RSA_PKCS_OAEP, CKF_DECRYPT, in: slot) != nil
        {
            return try generateRSA(request, maximumBits: Int(clamping: info.ulMaxKeySize))
        }
        if request.type != .privateKey, hasCBC { return try generateAES(label: request.label, id: request.id) }
        throw Failure(.unsupported, "the token generates no key that this program can use")
    }

    /// 3072 bits (128-bit strength); 2048 where a token has no more, as many TPMs.
    private func generateRSA(_ request: KeyRequest, maximumBits: Int) throws(Failure) -> KeyObjects {
        if maximumBits == 0 || maximumBits >= 3072 {
            do {
                return try generateRSA(bits: 3072, label: request.label, id: request.id)
            } catch {
                // Tokens refuse a size by many codes; only an answer about the login or the PIN is final.
                guard error.root.code != .denied else { throw error }
            }
        }
        return try generateRSA(bits: 2048, label: request.label, id: request.id)
    }

    func verifyProtection(of key: KeyObjects) throws(Failure) {
        let expected: [(CK_ATTRIBUTE_TYPE, String, Bool)] = [
            (CKA_SENSITIVE, "CKA_SENSITIVE", true), (CKA_EXTRACTABLE, "CKA_EXTRACTABLE", false),
            (CKA_TOKEN, "CKA_TOKEN", true), (CKA_DECRYPT, "CKA_DECRYPT", true),
        ]
        for (type, name, value) in expected {
            guard try flag(type, of: key.key) == value else {
                throw Failure(.unsupported, "the token made a key whose \(name) is not \(value)")
            }
        }
        // Kept by the token since the key's generation; not every token has them.
        for (type, name) in [
            (CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE"), (CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE"),
        ] {
            guard try flag(type, of: key.key) ?? true else {
                throw Failure(.unsupported, "the token made a key whose \(name) is false")
            }
        }
    }
}
