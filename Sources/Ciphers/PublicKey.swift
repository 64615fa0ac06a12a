import COpenSSL

/// A public key that verifies signatures over SHA-256: ECDSA on P-256, or RSA (PKCS#1 v1.5) of 2048 to 8192 bits.
package struct PublicKey: ~Copyable {
    package enum Kind: UInt8, Sendable { case p256 = 1, rsa = 2 }

    package let kind: Kind
    // Owned by this value alone.
    private let key: OpaquePointer

    /// Longest SubjectPublicKeyInfo accepted, in bytes.
    package static let maximumEncodedSize = 2048
    /// Bytes of an uncompressed point on P-256.
    package static let pointSize = 65

    /// From a SubjectPublicKeyInfo (RFC 5280), DER. `.notAuthentic` for anything else, and for keys of other kinds or sizes.
    package init(subjectPublicKeyInfo bytes: [UInt8]) throws(CipherError) {
        guard bytes.count <= Self.maximumEncodedSize else { throw CipherError(.notAuthentic) }
        let parsed = bytes.withUnsafeBufferPointer { buffer -> OpaquePointer? in
            var position = buffer.baseAddress
            guard let key = d2i_PUBKEY_ex(nil, &position, buffer.count, nil, Algorithms.propertyQuery) else {
                return nil
            }
            // Trailing bytes would give one key several encodings, and so several hashes.
            if position == buffer.baseAddress.map({ $0 + buffer.count }) { return key }
            EVP_PKEY_free(key)
            return nil
        }
        guard let parsed else {
            ERR_clear_error()
            throw CipherError(.notAuthentic)
        }
        try self.init(owning: parsed)
    }

    /// From a point on P-256 in uncompressed form, as tokens give it.
    package init(p256Point point: [UInt8]) throws(CipherError) {
        guard point.count == Self.pointSize else { throw CipherError(.notAuthentic) }
        var point = point
        var group = Self.text("P-256")
        let made = point.withUnsafeMutableBytes { point in
            group.withUnsafeMutableBufferPointer { group in
                Self.make(
                    "EC",
                    [
                        OSSL_PARAM_construct_utf8_string(Name.group.pointer, group.baseAddress, 0),
                        OSSL_PARAM_construct_octet_string(Name.point.pointer, point.baseAddress, point.count),
                        OSSL_PARAM_construct_end(),
                    ])
            }
        }
        guard let made else { throw CipherError(.notAuthentic) }
        try self.init(owning: made)
    }

    /// From an RSA modulus and public exponent, big-endian, as tokens give them.
    package init(rsaModulus modulus: [UInt8], exponent: [UInt8]) throws(CipherError) {
        guard modulus.count <= 1025, exponent.count <= 8 else { throw CipherError(.notAuthentic) }
        // Parameters hold integers in the machine's order.
        var modulus = Self.native(modulus)
        var exponent = Self.native(exponent)
        let made = modulus.withUnsafeMutableBufferPointer { modulus in
            exponent.withUnsafeMutableBufferPointer { exponent in
                Self.make(
                    "RSA",
                    [
                        OSSL_PARAM_construct_BN(Name.modulus.pointer, modulus.baseAddress, modulus.count),
                        OSSL_PARAM_construct_BN(Name.exponent.pointer, exponent.baseAddress, exponent.count),
                        OSSL_PARAM_construct_end(),
                    ])
            }
        }
        guard let made else { throw CipherError(.notAuthentic) }
        try self.init(owning: made)
    }

    private init(owning key: OpaquePointer) throws(CipherError) {
        // Both are set before anything throws: `deinit` frees the key then, too.
        self.key = key
        kind = EVP_PKEY_is_a(key, "EC") == 1 ? .p256 : .rsa
        var name = [CChar](repeating: 0, count: 64)
        var count = 0
        let isGood: Bool
        switch kind {
        case .p256:
            isGood =
                EVP_PKEY_get_group_name(key, &name, name.count, &count) == 1
                && ["prime256v1", "P-256"].contains(
                    String(decoding: name.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self))
        case .rsa:
            isGood = EVP_PKEY_is_a(key, "RSA") == 1 && (2048...8192).contains(EVP_PKEY_get_bits(key))
        }
        guard isGood else { throw CipherError(.notAuthentic) }
    }

    /// The SubjectPublicKeyInfo, DER.
    package func encoded() throws(CipherError) -> [UInt8] {
        var memory: UnsafeMutablePointer<UInt8>?
        let count = i2d_PUBKEY(key, &memory)
        guard count > 0, let memory else { throw CipherError(.failed) }
        defer { CRYPTO_free(memory, nil, 0) }
        return Array(UnsafeBufferPointer(start: memory, count: Int(count)))
    }

    /// Whether `signature` (ECDSA: DER; RSA: big-endian) fits `message`.
    package func verifies(_ signature: [UInt8], of message: [UInt8]) throws(CipherError) -> Bool {
        guard let context = EVP_MD_CTX_new() else { throw CipherError(.failed) }
        defer {
            EVP_MD_CTX_free(context)
            ERR_clear_error()
        }
        guard EVP_DigestVerifyInit_ex(context, nil, "SHA256", nil, Algorithms.propertyQuery, key, nil) == 1 else {
            throw CipherError(.unavailable)
        }
        return EVP_DigestVerify(context, signature, signature.count, message, message.count) == 1
    }

    deinit { EVP_PKEY_free(key) }

    /// EVP_PKEY_PUBLIC_KEY, a macro that is not imported.
    private static let selection =
        OSSL_KEYMGMT_SELECT_PUBLIC_KEY | OSSL_KEYMGMT_SELECT_DOMAIN_PARAMETERS | OSSL_KEYMGMT_SELECT_OTHER_PARAMETERS

    private static func make(_ type: String, _ parameters: [OSSL_PARAM]) -> OpaquePointer? {
        guard let context = EVP_PKEY_CTX_new_from_name(nil, type, Algorithms.propertyQuery) else { return nil }
        defer {
            EVP_PKEY_CTX_free(context)
            ERR_clear_error()
        }
        var parameters = parameters
        var key: OpaquePointer?
        guard EVP_PKEY_fromdata_init(context) == 1,
            EVP_PKEY_fromdata(context, &key, Self.selection, &parameters) == 1
        else { return nil }
        return key
    }

    private static func text(_ text: String) -> [CChar] { Array(text.utf8CString) }

    private static func native(_ bigEndian: [UInt8]) -> [UInt8] {
        Int(littleEndian: 1) == 1 ? bigEndian.reversed() : bigEndian
    }
}

/// ECDSA signatures: DER (RFC 3279) in files, r | s of equal lengths as tokens give them.
package enum ECDSASignature {
    /// Bytes of r | s on P-256.
    package static let rawSize = 64

    /// DER from r | s.
    package static func encoded(raw: [UInt8]) throws(CipherError) -> [UInt8] {
        guard raw.count == rawSize else { throw CipherError(.failed) }
        guard let signature = ECDSA_SIG_new() else { throw CipherError(.failed) }
        defer { ECDSA_SIG_free(signature) }
        let (r, s) = raw.withUnsafeBufferPointer { bytes in
            let half = Int32(rawSize / 2)
            return (
                BN_bin2bn(bytes.baseAddress, half, nil), BN_bin2bn(bytes.baseAddress.map { $0 + Int(half) }, half, nil)
            )
        }
        guard let r, let s, ECDSA_SIG_set0(signature, r, s) == 1 else {
            BN_free(r)
            BN_free(s)
            throw CipherError(.failed)
        }
        var memory: UnsafeMutablePointer<UInt8>?
        let count = i2d_ECDSA_SIG(signature, &memory)
        guard count > 0, let memory else { throw CipherError(.failed) }
        defer { CRYPTO_free(memory, nil, 0) }
        return Array(UnsafeBufferPointer(start: memory, count: Int(count)))
    }
}

/// Parameter names of EVP_PKEY-EC(7) and EVP_PKEY-RSA(7). OpenSSL keeps their addresses, so they have to last.
private enum Name {
    static let group: StaticString = "group"
    static let point: StaticString = "pub"
    static let modulus: StaticString = "n"
    static let exponent: StaticString = "e"
}

extension StaticString {
    fileprivate var pointer: UnsafePointer<CChar> { UnsafeRawPointer(utf8Start).assumingMemoryBound(to: CChar.self) }
}
