import Ciphers
import Secrets
import TestSupport
import Testing

/// Runs one record through the code that the mount uses. `nil`: not of a parameter set that this program has.
enum VectorCheck {
    /// Seals where there is a plaintext, and opens.
    static func gcm(_ record: VectorFile.Record, _ pool: AEADPool) throws -> Bool? {
        let keyBytes = try #require(record.bytes("Key"))
        let iv = try #require(record.bytes("IV"))
        let tag = try #require(record.bytes("Tag"))
        let aad = try #require(record.bytes("AAD"))
        let ciphertext = try #require(record.bytes("CT"))
        guard keyBytes.count == SecretKey.size, iv.count == AEADContext.ivSize, tag.count == AEADContext.tagSize else {
            return nil
        }
        let key = AEADKey(SecretKey(bytes: keyBytes))
        return try pool.withContext(for: key) { context in
            let opened = try context.open(under: key, iv: iv, aad: aad, ciphertext, tag: tag)
            if record.flags.contains("FAIL") { return !opened.isAuthentic && opened.output.allSatisfy { $0 == 0 } }
            let plaintext = try #require(record.bytes("PT"))
            let sealed = try context.seal(under: key, iv: iv, aad: aad, plaintext)
            return opened.isAuthentic && opened.output == plaintext && sealed.ciphertext == ciphertext
                && sealed.tag == tag
        }
    }

    /// Wraps where there is a plaintext, and unwraps.
    static func keyWrap(_ record: VectorFile.Record, _ variant: KeyWrap.Variant) throws -> Bool? {
        let keyBytes = try #require(record.bytes("K"))
        let ciphertext = try #require(record.bytes("C"))
        guard keyBytes.count == SecretKey.size else { return nil }
        let kek = SecretKey(bytes: keyBytes)
        let unwrapped = try run(variant, encrypt: false, under: kek, ciphertext)
        if record.flags.contains("FAIL") { return unwrapped == nil }
        let plaintext = try #require(record.bytes("P"))
        guard unwrapped == plaintext, try run(variant, encrypt: true, under: kek, plaintext) == ciphertext else {
            return false
        }
        // A 256-bit key also goes the way of a DEK.
        guard variant == .kw, plaintext.count == SecretKey.size else { return true }
        return try KeyWrap.wrap(SecretKey(bytes: plaintext), under: kek) == ciphertext
            && ciphertext.withUnsafeBytes { try KeyWrap.unwrap($0, under: kek).array() } == plaintext
    }

    /// One wrap or unwrap; `nil` when it is refused as not authentic.
    static func run(
        _ variant: KeyWrap.Variant, encrypt: Bool, under kek: borrowing SecretKey, _ input: [UInt8]
    ) throws -> [UInt8]? {
        var output = [UInt8](repeating: 0, count: input.count + 16)
        do {
            let count = try input.withUnsafeBytes { input in
                try output.withUnsafeMutableBytes {
                    try KeyWrap.run(variant, encrypt: encrypt, under: kek, input, $0)
                }
            }
            return Array(output[..<count])
        } catch let error as CipherError where error.code == .notAuthentic {
            return nil
        }
    }

    static func hkdf(_ record: VectorFile.Record) throws -> Bool? {
        let parent = try #require(record.bytes("IKM"))
        let length = try #require(record.number("L"))
        let salt = try #require(record.bytes("salt"))
        let info = try #require(record.bytes("info"))
        var output = [UInt8](repeating: 0, count: length)
        try parent.withUnsafeBytes { parent in
            try output.withUnsafeMutableBytes { try HKDF.derive(from: parent, salt: salt, info: info, into: $0) }
        }
        return output == record.bytes("OKM")
    }

    static func hmac(_ record: VectorFile.Record) throws -> Bool? {
        let key = try #require(record.bytes("Key"))
        let message = try #require(record.bytes("Msg"))
        let code = try key.withUnsafeBytes { key in
            try message.withUnsafeBytes { try HMACSHA256.code(keyBytes: key, message: $0) }
        }
        return code == record.bytes("MD")
    }
}
