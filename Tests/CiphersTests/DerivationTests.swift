import Ciphers
import Secrets
import TestSupport
import Testing

@Suite struct DerivationTests {
    /// `DerivedKeys` is HKDF with a UUID as salt, and label and version as info, cut in pieces.
    @Test func derivedKeysAreHKDF() throws {
        let parent = SecretKey(bytes: [UInt8](0..<32))
        let keys = try DerivedKeys(4, from: parent, salt: (1, 2), info: "test", version: 0x0102_0304)
        var expected = [UInt8](repeating: 0, count: 128)
        let salt: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]
        try parent.withBytes { parent in
            try expected.withUnsafeMutableBytes {
                try HKDF.derive(from: parent, salt: salt, info: Array("test".utf8) + [4, 3, 2, 1], into: $0)
            }
        }
        for index in 0..<4 { #expect(keys.key(index).array() == Array(expected[index * 32..<(index + 1) * 32])) }
    }

    @Test func eachInputCounts() throws {
        let parent = SecretKey(bytes: [UInt8](0..<32))
        let other = SecretKey(bytes: [UInt8](1..<33))
        let keys = [
            try HKDF.derive(from: parent, salt: [1], info: [2]).array(),
            try HKDF.derive(from: other, salt: [1], info: [2]).array(),
            try HKDF.derive(from: parent, salt: [2], info: [2]).array(),
            try HKDF.derive(from: parent, salt: [1], info: [1]).array(),
            try HKDF.derive(from: parent, salt: [], info: []).array(),
        ]
        #expect(Set(keys).count == keys.count)
    }

    @Test func macComparison() {
        #expect(HMACSHA256.isEqual([1, 2, 3], [1, 2, 3]))
        #expect(!HMACSHA256.isEqual([1, 2, 3], [1, 2, 4]))
        #expect(!HMACSHA256.isEqual([1, 2, 3], [1, 2]))
        #expect(HMACSHA256.isEqual([], []))
    }

    @Test func randomKeysDiffer() throws {
        var seen: Set<[UInt8]> = []
        for _ in 0..<1000 { seen.insert(try RandomBytes.key().array()) }
        #expect(seen.count == 1000)
    }
}
