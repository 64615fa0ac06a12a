import CPKCS11
import Ciphers
import KeyManagement

/// Key pairs that sign (PKCS#11 2.40 §2.1, §2.3), as found or made on a token. Used on the module's thread.
///
/// ECDSA on P-256 where the token has it, else RSA with PKCS#1 v1.5. The digest is OpenSSL's: every token that signs takes one.
struct SigningKey {
    let kind: PublicKey.Kind
    let key: CK_OBJECT_HANDLE
    /// SubjectPublicKeyInfo, DER.
    let publicKey: [UInt8]

    /// prime256v1, as CKA_EC_PARAMS takes it (RFC 5480).
    fileprivate static let p256 = [UInt8]([0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07])
    /// What PKCS#1 v1.5 puts before a SHA-256 digest (RFC 8017 §9.2).
    fileprivate static let digestInfo = [UInt8](
        [
            0x30, 0x31, 0x30, 0x0D, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04,
            0x20,
        ])
}

extension Session {
    /// The signing key of a label; `nil` if the token holds none, or one that lacks its public half.
    func findSigningKey(_ label: [UInt8]) throws(Failure) -> SigningKey? {
        let privateKeys = try signingObjects(CKO_PRIVATE_KEY, label)
        let publicKeys = try signingObjects(CKO_PUBLIC_KEY, label)
        guard let key = privateKeys.first, let other = publicKeys.first else { return nil }
        guard privateKeys.count == 1, publicKeys.count == 1 else {
            throw Failure(.keyAmbiguous, "several signing keys have one label")
        }
        return try signingKey(key, other)
    }

    /// Makes a signing key in the token; `nil` where it generates neither kind.
    func createSigningKey(_ label: [UInt8], id: [UInt8]) throws(Failure) -> SigningKey? {
        if try cryptoki.mechanism(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR, in: slot) != nil,
            try cryptoki.mechanism(CKM_ECDSA, CKF_SIGN, in: slot) != nil
        {
            do throws(Failure) {
                return try makeSigningKey(.p256, label, id)
            } catch {
                // Tokens refuse a curve by many codes; only an answer about the login or the PIN is final.
                guard error.root.code != .denied else { throw error }
            }
        }
        guard try cryptoki.mechanism(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR, in: slot) != nil,
            try cryptoki.mechanism(CKM_RSA_PKCS, CKF_SIGN, in: slot) != nil
        else { return nil }
        return try makeSigningKey(.rsa, label, id)
    }

    /// A key that is not as asked for, or whose first signature does not verify, is destroyed at once.
    private func makeSigningKey(_ kind: PublicKey.Kind, _ label: [UInt8], _ id: [UInt8]) throws(Failure) -> SigningKey {
        let (key, other) = try generateSigningPair(kind, label, id)
        do throws(Failure) {
            for (type, value) in [(CKA_SENSITIVE, true), (CKA_EXTRACTABLE, false), (CKA_TOKEN, true)] {
                guard try flag(type, of: key) == value else {
                    throw Failure(.unsupported, "the token made a signing key that is not protected")
                }
            }
            let made = try signingKey(key, other)
            _ = try sign([UInt8](label), with: made)
            return made
        } catch {
            try? destroyObject(key)
            try? destroyObject(other)
            throw error
        }
    }

    /// Signs SHA-256 of a message, and checks what the token gave.
    func sign(_ message: [UInt8], with key: SigningKey) throws(Failure) -> [UInt8] {
        do {
            var digest = try SHA256.digest(message)
            if key.kind == .rsa { digest = SigningKey.digestInfo + digest }
            var bytes = try signRaw(digest, key.kind == .rsa ? CKM_RSA_PKCS : CKM_ECDSA, key.key)
            if key.kind == .p256 { bytes = try ECDSASignature.encoded(raw: bytes) }
            guard try PublicKey(subjectPublicKeyInfo: key.publicKey).verifies(bytes, of: message) else {
                throw Failure(.failed, "C_Sign: the signature does not fit the public key")
            }
            return bytes
        } catch let failure as Failure {
            throw failure
        } catch {
            throw Failure(.failed, "OpenSSL failed on a signature")
        }
    }

    private func signRaw(
        _ input: [UInt8], _ type: CK_MECHANISM_TYPE, _ key: CK_OBJECT_HANDLE
    ) throws(Failure) -> [UInt8] {
        try Mechanism.plain(type).withMechanism { (mechanism) throws(Failure) in
            let functions = cryptoki.functions
            try cryptoki.check("C_SignInit") { functions.pointee.C_SignInit?(handle, mechanism, key) }
            var input = input
            var output = [UInt8](repeating: 0, count: 1024)
            var count = CK_ULONG(output.count)
            try cryptoki.check("C_Sign") {
                functions.pointee.C_Sign?(handle, &input, CK_ULONG(input.count), &output, &count)
            }
            guard count <= output.count else { throw Failure("C_Sign", CKR_GENERAL_ERROR) }
            return Array(output.prefix(Int(count)))
        }
    }

    private func signingObjects(
        _ objectClass: CK_OBJECT_CLASS, _ label: [UInt8]
    ) throws(Failure) -> [CK_OBJECT_HANDLE] {
        var template = AttributeTemplate()
        template.add(CKA_CLASS, number: objectClass)
        template.add(CKA_LABEL, bytes: label)
        return try find(template, maximum: 2)
    }

    /// Reads the public half.
    private func signingKey(_ key: CK_OBJECT_HANDLE, _ other: CK_OBJECT_HANDLE) throws(Failure) -> SigningKey {
        let type = try number(CKA_KEY_TYPE, of: other)
        do {
            switch type {
            case CKK_EC:
                guard var point = try attribute(CKA_EC_POINT, of: other) else { break }
                // A DER octet string by the standard; some tokens leave its two bytes of header off.
                if point.count == PublicKey.pointSize + 2, point[0] == 0x04, point[1] == PublicKey.pointSize {
                    point.removeFirst(2)
                }
                return SigningKey(kind: .p256, key: key, publicKey: try PublicKey(p256Point: point).encoded())
            case CKK_RSA:
                guard let modulus = try attribute(CKA_MODULUS, of: other),
                    let exponent = try attribute(CKA_PUBLIC_EXPONENT, of: other)
                else { break }
                let encoded = try PublicKey(rsaModulus: modulus, exponent: exponent).encoded()
                return SigningKey(kind: .rsa, key: key, publicKey: encoded)
            default: break
            }
        } catch let failure as Failure {
            throw failure
        } catch {
            throw Failure(.unsupported, "the public key of the token is none")
        }
        throw Failure(.unsupported, "the signing key is neither EC nor RSA")
    }

    private func generateSigningPair(
        _ kind: PublicKey.Kind, _ label: [UInt8], _ id: [UInt8]
    ) throws(Failure) -> (private: CK_OBJECT_HANDLE, public: CK_OBJECT_HANDLE) {
        var publicTemplate = AttributeTemplate()
        var privateTemplate = AttributeTemplate()
        switch kind {
        case .p256: publicTemplate.add(CKA_EC_PARAMS, bytes: SigningKey.p256)
        case .rsa:
            publicTemplate.add(CKA_MODULUS_BITS, number: 2048)
            publicTemplate.add(CKA_PUBLIC_EXPONENT, bytes: [1, 0, 1])
        }
        publicTemplate.add(CKA_LABEL, bytes: label)
        publicTemplate.add(CKA_ID, bytes: id)
        for type in [CKA_TOKEN, CKA_VERIFY] { publicTemplate.add(type, true) }
        privateTemplate.add(CKA_LABEL, bytes: label)
        privateTemplate.add(CKA_ID, bytes: id)
        for type in [CKA_TOKEN, CKA_PRIVATE, CKA_SENSITIVE, CKA_SIGN] { privateTemplate.add(type, true) }
        privateTemplate.add(CKA_EXTRACTABLE, false)
        return try generatePair(
            kind == .p256 ? CKM_EC_KEY_PAIR_GEN : CKM_RSA_PKCS_KEY_PAIR_GEN, publicTemplate, privateTemplate)
    }
}
