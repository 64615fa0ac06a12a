import Ciphers

/// A signature over a message, and the hash of the key that made it.
package struct Signature: Sendable, Equatable {
    /// SHA-256 of the SubjectPublicKeyInfo, lowercase hexadecimal.
    package var keyID: String
    /// ECDSA on P-256: DER. RSA PKCS#1 v1.5: big-endian. Both over SHA-256.
    package var bytes: [UInt8]

    package init(keyID: String, bytes: [UInt8]) {
        self.keyID = keyID
        self.bytes = bytes
    }
}

/// A private key that signs, and never leaves its owner. Each call may cross a network; callers hold no lock over one.
package protocol Signer: AnyObject, Sendable {
    /// SubjectPublicKeyInfo, DER.
    var publicKey: [UInt8] { get }

    /// Signs SHA-256 of the message at the owner.
    func sign(_ message: [UInt8]) throws(RootError) -> Signature
}

extension Signature {
    /// The id of a public key: SHA-256 of its SubjectPublicKeyInfo, lowercase hexadecimal.
    package static func keyID(of publicKey: [UInt8]) throws(CipherError) -> String {
        let digits = Array("0123456789abcdef")
        return String(try SHA256.digest(publicKey).flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }

    /// Whether it is that key's signature of `message`. False, too, for bytes that are no public key.
    package func fits(_ message: [UInt8], publicKey: [UInt8]) -> Bool {
        guard (try? Self.keyID(of: publicKey)) == keyID,
            let isGood = try? PublicKey(subjectPublicKeyInfo: publicKey).verifies(bytes, of: message)
        else { return false }
        return isGood
    }
}

extension CustomerMasterKey {
    /// An owner that has no signatures to give.
    package func signer(creating: Bool) throws(RootError) -> (any Signer)? { nil }
}
