import CPKCS11
import KeyManagement

/// Which key a URI names on its token.
struct KeySelector: Hashable, Sendable {
    var label: [UInt8]?
    var id: [UInt8]?
    /// `.secretKey`, `.privateKey`, or `nil` for either.
    var type: PKCS11URI.ObjectType?
}

/// The objects of one CMK, as found now. Handles hold for one session; nobody keeps them.
struct KeyObjects {
    enum Kind { case aes, rsa }
    let kind: Kind
    /// The AES key, or the private half: the object that decrypts, and whose attributes switch the CMK.
    let key: CK_OBJECT_HANDLE
    /// The object that encrypts: the AES key again, or the public half if the token keeps it.
    let encryptionKey: CK_OBJECT_HANDLE?
    /// Bytes in an RSA key's modulus.
    var modulusSize: Int?
}

extension Session {
    /// The key that `selector` names; `nil` if the token holds none.
    func findKey(_ selector: KeySelector) throws(Failure) -> KeyObjects? {
        var found: [(CK_OBJECT_HANDLE, isPrivate: Bool)] = []
        if selector.type != .privateKey {
            found += try objects(CKO_SECRET_KEY, selector).map { ($0, false) }
        }
        if selector.type != .secretKey {
            found += try objects(CKO_PRIVATE_KEY, selector).map { ($0, true) }
        }
        guard let (key, isPrivate) = found.first else { return nil }
        guard found.count == 1 else { throw Failure(.keyAmbiguous, "several keys match the URI: give its id") }
        let type = try number(CKA_KEY_TYPE, of: key)
        if !isPrivate {
            guard type == CKK_AES, try number(CKA_VALUE_LEN, of: key).map({ $0 == 32 }) ?? true else {
                throw Failure(.unsupported, "the secret key is not AES-256")
            }
            return KeyObjects(kind: .aes, key: key, encryptionKey: key)
        }
        guard type == CKK_RSA else { throw Failure(.unsupported, "the private key is not RSA") }
        var publicSelector = selector
        publicSelector.id = try attribute(CKA_ID, of: key) ?? selector.id
        // The halves are tied by CKA_ID (PKCS#11 2.40 §4.7); their labels may differ.
        if publicSelector.id?.isEmpty == false { publicSelector.label = nil }
        let publicKeys = try objects(CKO_PUBLIC_KEY, publicSelector)
        let modulus = try attribute(CKA_MODULUS, of: key) ?? []
        return KeyObjects(
            kind: .rsa, key: key, encryptionKey: publicKeys.count == 1 ? publicKeys.first : nil,
            modulusSize: modulus.drop { $0 == 0 }.count)
    }

    /// The same, and `gone` where there is none. A session without a login sees no private object, so that "none" counts
    /// only while the login holds.
    func requireKey(
        _ selector: KeySelector, gone: RootError.Code, named name: String = "such key"
    ) throws(Failure) -> KeyObjects {
        if let key = try findKey(selector) { return key }
        if token.needsLogin, try !cryptoki.isUserLoggedIn(handle) {
            throw Failure("C_FindObjects", CKR_USER_NOT_LOGGED_IN)
        }
        throw Failure(
            gone, "the token \"\(token.label)\" holds no \(name)", mayNeedRestart: cryptoki.quirks.mayLoseObjects)
    }

    private func objects(
        _ objectClass: CK_OBJECT_CLASS, _ selector: KeySelector
    ) throws(Failure) -> [CK_OBJECT_HANDLE] {
        var template = AttributeTemplate()
        template.add(CKA_CLASS, number: objectClass)
        if let label = selector.label { template.add(CKA_LABEL, bytes: label) }
        if let id = selector.id { template.add(CKA_ID, bytes: id) }
        return try find(template, maximum: 2)
    }
}
