import Ciphers

extension AEADContext {
    /// `seal` for arrays.
    package mutating func seal(
        under key: borrowing AEADKey, iv: [UInt8], aad: [UInt8], _ plaintext: [UInt8]
    ) throws -> (ciphertext: [UInt8], tag: [UInt8]) {
        try loadForSealing(key)
        var ciphertext = [UInt8](repeating: 0xA5, count: plaintext.count + 1)
        var tag = [UInt8](repeating: 0, count: Self.tagSize)
        try aad.withUnsafeBytes { aad in
            try plaintext.withUnsafeBytes { plaintext in
                try seal(iv: iv, aad: aad, plaintext: plaintext, ciphertext: &ciphertext, tag: &tag)
            }
        }
        ciphertext.removeLast()
        return (ciphertext, tag)
    }

    /// `open` for arrays: what the output holds afterwards, and whether it is authentic.
    package mutating func open(
        under key: borrowing AEADKey, iv: [UInt8], aad: [UInt8], _ ciphertext: [UInt8], tag: [UInt8]
    ) throws -> (output: [UInt8], isAuthentic: Bool) {
        try loadForOpening(key)
        var output = [UInt8](repeating: 0xA5, count: ciphertext.count + 1)
        var isAuthentic = true
        try aad.withUnsafeBytes { aad in
            try ciphertext.withUnsafeBytes { ciphertext in
                do throws(CipherError) {
                    try open(iv: iv, aad: aad, ciphertext: ciphertext, tag: tag, plaintext: &output)
                } catch {
                    guard error.code == .notAuthentic else { throw error }
                    isAuthentic = false
                }
            }
        }
        output.removeLast()
        return (output, isAuthentic)
    }
}
