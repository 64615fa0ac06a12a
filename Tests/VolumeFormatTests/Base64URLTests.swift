import TestSupport
import Testing
import VolumeFormat

@Suite struct Base64URLTests {
    private func text(_ string: String) -> [UInt8] { Array(string.utf8) }

    /// RFC 4648 section 10, without padding.
    @Test(arguments: [
        ("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE"),
        ("foobar", "Zm9vYmFy"),
    ])
    func published(plain: String, encoded: String) {
        #expect(Base64URL.encode(text(plain)) == text(encoded))
        #expect(Base64URL.decode(text(encoded)) == text(plain))
    }

    @Test func alphabetIsTheURLSafeOne() {
        #expect(Base64URL.encode([0xFB, 0xEF, 0xBE]) == text("----"))
        #expect(Base64URL.encode([0xFF, 0xFF, 0xFF]) == text("____"))
    }

    /// Not one text for each byte string: paddings, other alphabets, blanks, loose bits, lengths that nothing encodes to.
    @Test(arguments: [
        "Zg==", "Zg=", "Zm8=", "Zm+v", "Zm/v", "Zm9v\n", " Zm9v", "Zm 9v", "Z", "Zm9vY", "Zh", "Zk", "Z_", "Zm9", "Zm-",
        "Zm9\0", "Zm9é",
    ])
    func refuses(encoded: String) { #expect(Base64URL.decode(text(encoded)) == nil) }

    @Test func everyOtherByteIsRefused() {
        let alphabet = Set(text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
        for byte in UInt8.min...UInt8.max {
            #expect((Base64URL.decode([byte, 0x41, 0x41, 0x41]) != nil) == alphabet.contains(byte))
        }
    }

    /// Whatever decodes is what its bytes encode to.
    @Test func decodingIsStrict() {
        let alphabet = text("ABCDwxyz0189-_")
        var generator = SeededGenerator(seed: 2)
        for _ in 0..<100_000 {
            let candidate = (0..<generator.below(9)).map { _ in alphabet[generator.below(alphabet.count)] }
            guard let bytes = Base64URL.decode(candidate) else { continue }
            #expect(Base64URL.encode(bytes) == candidate)
        }
    }

    @Test(arguments: 0...300)
    func roundTrip(count: Int) {
        var generator = SeededGenerator(seed: UInt64(count))
        let bytes = generator.bytes(count)
        let encoded = Base64URL.encode(bytes)
        #expect(encoded.count == Base64URL.encodedCount(count))
        #expect(Base64URL.decodedCount(encoded.count) == count)
        #expect(Base64URL.decode(encoded) == bytes)
    }
}
