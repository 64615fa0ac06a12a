/// base64url without padding (RFC 4648 §5), strict: one text for each byte string.
package enum Base64URL {
    private static let alphabet: [UInt8] = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: 0xFF, count: 256)
        for (value, character) in alphabet.enumerated() { values[Int(character)] = UInt8(value) }
        return values
    }()

    /// Characters for `count` bytes.
    package static func encodedCount(_ count: Int) -> Int { (count * 4 + 2) / 3 }
    /// Bytes in `count` characters.
    package static func decodedCount(_ count: Int) -> Int { count * 3 / 4 }

    /// Writes `encodedCount(bytes.count)` characters to `output`.
    package static func encode(_ bytes: UnsafeRawBufferPointer, into output: UnsafeMutableRawPointer) {
        alphabet.withUnsafeBufferPointer { alphabet in
            let output = output.assumingMemoryBound(to: UInt8.self)
            var accumulator: UInt32 = 0
            var bits: UInt32 = 0
            var at = 0
            for byte in bytes {
                accumulator = accumulator << 8 | UInt32(byte)
                bits += 8
                while bits >= 6 {
                    bits -= 6
                    output[at] = alphabet[Int(accumulator >> bits & 63)]
                    at += 1
                }
            }
            if bits > 0 { output[at] = alphabet[Int(accumulator << (6 - bits) & 63)] }
        }
    }

    /// Reads characters into `output`, which holds `decodedCount`. False for a character outside the alphabet, an impossible
    /// length, or loose bits at the end.
    package static func decode(_ text: UnsafeRawBufferPointer, into output: UnsafeMutableRawPointer) -> Bool {
        guard text.count % 4 != 1 else { return false }
        return values.withUnsafeBufferPointer { values in
            let output = output.assumingMemoryBound(to: UInt8.self)
            var accumulator: UInt32 = 0
            var bits: UInt32 = 0
            var at = 0
            for character in text {
                let value = values[Int(character)]
                guard value != 0xFF else { return false }
                accumulator = (accumulator << 6 | UInt32(value)) & 0xFFFF
                bits += 6
                if bits >= 8 {
                    bits -= 8
                    output[at] = UInt8(truncatingIfNeeded: accumulator >> bits)
                    at += 1
                }
            }
            return accumulator & (1 << bits - 1) == 0
        }
    }

    package static func encode(_ bytes: [UInt8]) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: encodedCount(bytes.count)) { buffer, count in
            bytes.withUnsafeBytes { bytes in
                if let start = buffer.baseAddress { encode(bytes, into: start) }
            }
            count = encodedCount(bytes.count)
        }
    }

    package static func decode(_ text: UnsafeRawBufferPointer) -> [UInt8]? {
        var valid = false
        let bytes = [UInt8](unsafeUninitializedCapacity: decodedCount(text.count)) { buffer, count in
            if let start = buffer.baseAddress { valid = decode(text, into: start) } else { valid = text.isEmpty }
            count = valid ? decodedCount(text.count) : 0
        }
        return valid ? bytes : nil
    }

    package static func decode(_ text: [UInt8]) -> [UInt8]? { text.withUnsafeBytes { decode($0) } }
}
