import CPKCS11
import KeyManagement

/// Key management functions (PKCS#11 2.40 §5.13): a CMK comes into being inside its token.
extension Session {
    /// An AES-256 key that encrypts and decrypts, and does nothing else.
    ///
    /// Not WRAP and UNWRAP: what is wrapped here is data to the token, and a key that wraps could take others out of it.
    func generateAES(label: [UInt8], id: [UInt8]) throws(Failure) -> KeyObjects {
        var template = AttributeTemplate()
        template.add(CKA_CLASS, number: CKO_SECRET_KEY)
        template.add(CKA_KEY_TYPE, number: CKK_AES)
        template.add(CKA_VALUE_LEN, number: 32)
        template.add(CKA_LABEL, bytes: label)
        template.add(CKA_ID, bytes: id)
        for type in [CKA_TOKEN, CKA_PRIVATE, CKA_SENSITIVE, CKA_ENCRYPT, CKA_DECRYPT] { template.add(type, true) }
        for type in [CKA_EXTRACTABLE, CKA_WRAP, CKA_UNWRAP, CKA_SIGN, CKA_VERIFY, CKA_DERIVE] {
            template.add(type, false)
        }
        var key: CK_OBJECT_HANDLE = 0
        try Mechanism.plain(CKM_AES_KEY_GEN).withMechanism { (mechanism) throws(Failure) in
            try cryptoki.check("C_GenerateKey") {
                template.withAttributes {
                    cryptoki.functions.pointee.C_GenerateKey?(handle, mechanism, $0, $1, &key)
                }
            }
        }
        return KeyObjects(kind: .aes, key: key, encryptionKey: key)
    }

    /// An RSA key pair whose private half decrypts, and does nothing else.
    func generateRSA(bits: Int, label: [UInt8], id: [UInt8]) throws(Failure) -> KeyObjects {
        var publicTemplate = AttributeTemplate()
        publicTemplate.add(CKA_MODULUS_BITS, number: CK_ULONG(bits))
        publicTemplate.add(CKA_PUBLIC_EXPONENT, bytes: [1, 0, 1])
        publicTemplate.add(CKA_LABEL, bytes: label)
        publicTemplate.add(CKA_ID, bytes: id)
        for type in [CKA_TOKEN, CKA_ENCRYPT] { publicTemplate.add(type, true) }
        publicTemplate.add(CKA_WRAP, false)
        var privateTemplate = AttributeTemplate()
        privateTemplate.add(CKA_LABEL, bytes: label)
        privateTemplate.add(CKA_ID, bytes: id)
        for type in [CKA_TOKEN, CKA_PRIVATE, CKA_SENSITIVE, CKA_DECRYPT] { privateTemplate.add(type, true) }
        for type in [CKA_EXTRACTABLE, CKA_UNWRAP] { privateTemplate.add(type, false) }
        if !cryptoki.quirks.refusesDecryptOnlyRSA {
            publicTemplate.add(CKA_VERIFY, false)
            privateTemplate.add(CKA_SIGN, false)
        }
        let pair = try generatePair(CKM_RSA_PKCS_KEY_PAIR_GEN, publicTemplate, privateTemplate)
        return KeyObjects(kind: .rsa, key: pair.private, encryptionKey: pair.public)
    }

    /// C_GenerateKeyPair.
    func generatePair(
        _ type: CK_MECHANISM_TYPE, _ publicTemplate: consuming AttributeTemplate,
        _ privateTemplate: consuming AttributeTemplate
    ) throws(Failure) -> (private: CK_OBJECT_HANDLE, public: CK_OBJECT_HANDLE) {
        var publicTemplate = publicTemplate
        var privateTemplate = privateTemplate
        var publicKey: CK_OBJECT_HANDLE = 0
        var privateKey: CK_OBJECT_HANDLE = 0
        try Mechanism.plain(type).withMechanism { (mechanism) throws(Failure) in
            try cryptoki.check("C_GenerateKeyPair") {
                publicTemplate.withAttributes { publicAttributes, publicCount in
                    privateTemplate.withAttributes { privateAttributes, privateCount in
                        cryptoki.functions.pointee.C_GenerateKeyPair?(
                            handle, mechanism, publicAttributes, publicCount, privateAttributes, privateCount,
                            &publicKey, &privateKey)
                    }
                }
            }
        }
        return (privateKey, publicKey)
    }
}
