import KeyManagement
import Secrets

/// Percent encoding by RFC 3986, with the character sets of RFC 7512 §2.3.
enum PercentCoding {
    /// Which characters may stand for themselves.
    enum Alphabet {
        case path, query
        /// Every byte is encoded.
        case none

        func contains(_ byte: UInt8) -> Bool {
            if self == .none { return false }
            if isAlphanumeric(byte) || "-._~:[]@!$'()*+,=".utf8.contains(byte) { return true }
            return self == .path ? byte == UInt8(ascii: "&") : "/?|".utf8.contains(byte)
        }
    }

    static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            return true
        default: return false
        }
    }

    /// The parts between separators; none for an empty string, but an empty part is kept (and refused by the caller).
    static func split(_ bytes: ArraySlice<UInt8>, _ separator: UInt8) -> [ArraySlice<UInt8>] {
        bytes.isEmpty ? [] : bytes.split(separator: separator, omittingEmptySubsequences: false)
    }

    static func decode(_ bytes: ArraySlice<UInt8>, alphabet: Alphabet, of name: String) throws(RootError) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(bytes.count)
        try decode(bytes, alphabet: alphabet, of: name) { output.append($0) }
        return output
    }

    /// Decodes a PIN straight into locked memory.
    static func decodeSecret(_ bytes: ArraySlice<UInt8>) throws(RootError) -> SharedSecret {
        var buffer = SecretBuffer(count: bytes.count)
        var count = 0
        try buffer.withMutableBytes { (output) throws(RootError) in
            try decode(bytes, alphabet: .query, of: "pin-value") { byte in
                output[count] = byte
                count += 1
            }
        }
        buffer.truncate(to: count)
        return SharedSecret(buffer)
    }

    static func encode(_ bytes: some Sequence<UInt8>, alphabet: Alphabet) -> String {
        var text = ""
        for byte in bytes {
            if alphabet.contains(byte) {
                text.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                let digits = String(byte, radix: 16, uppercase: true)
                text += digits.utf8.count == 1 ? "%0" + digits : "%" + digits
            }
        }
        return text
    }

    private static func decode(
        _ bytes: ArraySlice<UInt8>, alphabet: Alphabet, of name: String, _ emit: (UInt8) -> Void
    ) throws(RootError) {
        var index = bytes.startIndex
        while index < bytes.endIndex {
            let byte = bytes[index]
            if byte == UInt8(ascii: "%") {
                guard index + 2 < bytes.endIndex, let high = digit(bytes[index + 1]), let low = digit(bytes[index + 2])
                else { throw PKCS11URI.invalid("\(name): % is not followed by two hexadecimal digits") }
                emit(high << 4 | low)
                index += 3
            } else {
                guard alphabet.contains(byte) else {
                    throw PKCS11URI.invalid("\(name): a character has to be percent-encoded")
                }
                emit(byte)
                index += 1
            }
        }
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): return byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): return byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): return byte - UInt8(ascii: "A") + 10
        default: return nil
        }
    }
}
