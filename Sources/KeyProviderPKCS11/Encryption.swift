import CPKCS11
import KeyManagement
import Secrets

/// Encryption and decryption functions (PKCS#11 2.40 §5.8, §5.9).
///
/// Sizes are never asked for: NSS answers such questions wrongly for GCM.
extension Session {
    private static let slack = 64

    func encrypt(
        _ plain: UnsafeRawBufferPointer, _ mechanism: Mechanism, _ key: KeyObjects
    ) throws(Failure) -> [UInt8] {
        guard let object = key.encryptionKey else {
            throw Failure(.unsupported, "the token holds no public key with the private key's id")
        }
        // An RSA ciphertext is as long as the modulus, and tpm2-pkcs11 says of any buffer that it filled it.
        let capacity = key.modulusSize ?? plain.count + Self.slack
        return try encrypt(plain, mechanism, object, capacity)
    }

    private func encrypt(
        _ plain: UnsafeRawBufferPointer, _ mechanism: Mechanism, _ key: CK_OBJECT_HANDLE, _ capacity: Int
    ) throws(Failure) -> [UInt8] {
        try mechanism.withMechanism { (mechanism) throws(Failure) in
            let functions = cryptoki.functions
            try cryptoki.check("C_EncryptInit") { functions.pointee.C_EncryptInit?(handle, mechanism, key) }
            var output = [UInt8](repeating: 0, count: capacity)
            var count = CK_ULONG(output.count)
            let input = UnsafeMutableRawPointer(mutating: plain.baseAddress)?.assumingMemoryBound(to: UInt8.self)
            try cryptoki.check("C_Encrypt") {
                functions.pointee.C_Encrypt?(handle, input, CK_ULONG(plain.count), &output, &count)
            }
            guard count <= output.count else { throw Failure("C_Encrypt", CKR_GENERAL_ERROR) }
            return Array(output.prefix(Int(count)))
        }
    }

    /// Decrypts into locked memory. `reachedData` tells whether C_Decrypt was called, so that the data may be at fault.
    func decrypt(
        _ cipher: [UInt8], _ mechanism: Mechanism, _ key: CK_OBJECT_HANDLE, reachedData: inout Bool
    ) throws(Failure) -> SecretBuffer {
        reachedData = false
        return try mechanism.withMechanism { (mechanism) throws(Failure) -> SecretBuffer in
            let functions = cryptoki.functions
            try cryptoki.check("C_DecryptInit") { functions.pointee.C_DecryptInit?(handle, mechanism, key) }
            reachedData = true
            var output = SecretBuffer(count: cipher.count + Self.slack)
            var input = cipher
            var count = CK_ULONG(output.count)
            try output.withMutableBytes { (bytes) throws(Failure) in
                let start = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
                try cryptoki.check("C_Decrypt") {
                    functions.pointee.C_Decrypt?(handle, &input, CK_ULONG(cipher.count), start, &count)
                }
            }
            guard count <= output.count else { throw Failure("C_Decrypt", CKR_GENERAL_ERROR) }
            output.truncate(to: Int(count))
            return output
        }
    }
}
