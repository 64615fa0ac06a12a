import COpenSSL

/// SHA-256 (FIPS 180-4).
package enum SHA256 {
    package static let size = 32

    package static func digest(_ message: [UInt8]) throws(CipherError) -> [UInt8] {
        let algorithms = try Algorithms.required()
        var output = [UInt8](repeating: 0, count: size)
        var length: UInt32 = 0
        guard EVP_Digest(message, message.count, &output, &length, algorithms.sha256, nil) == 1, length == size else {
            throw CipherError(.failed)
        }
        return output
    }
}
