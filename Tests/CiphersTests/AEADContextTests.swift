import Ciphers
import Secrets
import TestSupport
import Testing

@Suite struct AEADContextTests {
    static let sizes = [0, 1, 15, 16, 17, 3552, 4064, 4096, 1 << 20]
    private let iv = [UInt8](1...12)
    private let aad = [UInt8](0..<32)

    @Test(arguments: sizes)
    func opensWhatItSealed(size: Int) throws {
        var generator = SeededGenerator(seed: UInt64(size))
        let plaintext = generator.bytes(size)
        var context = try AEADContext()
        let key = AEADKey(try RandomBytes.key())
        let (ciphertext, tag) = try context.seal(under: key, iv: iv, aad: aad, plaintext)
        #expect(size < 16 || ciphertext != plaintext)
        let opened = try context.open(under: key, iv: iv, aad: aad, ciphertext, tag: tag)
        #expect(opened.isAuthentic && opened.output == plaintext)
    }

    @Test(arguments: sizes.filter { $0 > 0 })
    func wrongTagZeroesTheOutput(size: Int) throws {
        var context = try AEADContext()
        let key = AEADKey(try RandomBytes.key())
        let (ciphertext, tag) = try context.seal(under: key, iv: iv, aad: aad, [UInt8](repeating: 0x5A, count: size))
        for bit in 0..<128 where size < 1 << 20 || bit == 0 {
            var wrong = tag
            wrong[bit / 8] ^= 1 << (bit % 8)
            let opened = try context.open(under: key, iv: iv, aad: aad, ciphertext, tag: wrong)
            #expect(!opened.isAuthentic)
            #expect(opened.output.allSatisfy { $0 == 0 })
        }
        #expect(try context.open(under: key, iv: iv, aad: aad, ciphertext, tag: tag).isAuthentic)
    }

    @Test func anyChangeIsNoticed() throws {
        var context = try AEADContext()
        let key = AEADKey(try RandomBytes.key())
        let other = AEADKey(try RandomBytes.key())
        let plaintext = [UInt8](repeating: 7, count: 100)
        let (ciphertext, tag) = try context.seal(under: key, iv: iv, aad: aad, plaintext)
        for index in ciphertext.indices {
            var changed = ciphertext
            changed[index] ^= 1
            #expect(try !context.open(under: key, iv: iv, aad: aad, changed, tag: tag).isAuthentic)
        }
        for index in aad.indices {
            var changed = aad
            changed[index] ^= 0x80
            #expect(try !context.open(under: key, iv: iv, aad: changed, ciphertext, tag: tag).isAuthentic)
        }
        for index in iv.indices {
            var changed = iv
            changed[index] ^= 0x10
            #expect(try !context.open(under: key, iv: changed, aad: aad, ciphertext, tag: tag).isAuthentic)
        }
        #expect(try !context.open(under: other, iv: iv, aad: aad, ciphertext, tag: tag).isAuthentic)
        #expect(try !context.open(under: key, iv: iv, aad: aad, Array(ciphertext.dropLast()), tag: tag).isAuthentic)
        #expect(try context.open(under: key, iv: iv, aad: aad, ciphertext, tag: tag).output == plaintext)
    }

    /// One context goes from key to key, seals under one and opens under another, and gives what a fresh context gives.
    @Test func switchesBetweenKeys() throws {
        let keys = KeyPair(try RandomBytes.key(), try RandomBytes.key())
        var generator = SeededGenerator(seed: 1)
        var used = try AEADContext()
        for _ in 0..<500 {
            let plaintext = generator.bytes(generator.below(200))
            let iv = generator.bytes(12)
            let first = Bool.random(using: &generator)
            var fresh = try AEADContext()
            let sealed = try keys.with(first) { try used.seal(under: $0, iv: iv, aad: aad, plaintext) }
            let again = try keys.with(first) { try fresh.seal(under: $0, iv: iv, aad: aad, plaintext) }
            #expect(sealed == again)
            let second = Bool.random(using: &generator)
            let opened = try keys.with(second) {
                try used.open(under: $0, iv: iv, aad: aad, sealed.ciphertext, tag: sealed.tag)
            }
            #expect(opened.isAuthentic == (first == second))
        }
    }

    /// After `wipe` no key is loaded: not even its owner's claim to have it loaded is believed.
    @Test func wipeForgetsTheKey() throws {
        var context = try AEADContext()
        let key = AEADKey(try RandomBytes.key())
        let before = try context.seal(under: key, iv: iv, aad: aad, [1, 2, 3])
        context.wipe()
        var output = [UInt8](repeating: 0, count: 3)
        var tag = [UInt8](repeating: 0, count: 16)
        let plaintext: [UInt8] = [1, 2, 3]
        #expect(throws: CipherError.self) {
            try plaintext.withUnsafeBytes { plaintext in
                try aad.withUnsafeBytes {
                    try context.seal(iv: iv, aad: $0, plaintext: plaintext, ciphertext: &output, tag: &tag)
                }
            }
        }
        #expect(try context.seal(under: key, iv: iv, aad: aad, plaintext) == before)
        #expect(try context.open(under: key, iv: iv, aad: aad, before.ciphertext, tag: before.tag).isAuthentic)
    }
}

/// Two keys of which one is picked.
struct KeyPair: ~Copyable {
    private let first: AEADKey
    private let second: AEADKey

    init(_ first: consuming SecretKey, _ second: consuming SecretKey) {
        self.first = AEADKey(first)
        self.second = AEADKey(second)
    }

    borrowing func with<R>(_ isFirst: Bool, _ body: (borrowing AEADKey) throws -> R) throws -> R {
        isFirst ? try body(first) : try body(second)
    }
}
