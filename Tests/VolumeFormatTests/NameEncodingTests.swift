import Testing
import VolumeFormat

@Suite struct NameEncodingTests {
    private func isValid(_ name: [UInt8]) -> Bool { name.withUnsafeBytes { NameEncoding.isValid($0) } }

    /// The longest direct name is the longest whose KWP ciphertext fits in 255 characters.
    @Test(arguments: 1...255)
    func longNamesAreThoseThatDoNotFit(count: Int) {
        let characters = Base64URL.encodedCount(NameEncoding.wrappedCount(count))
        #expect(NameEncoding.isLong(count) == (characters > NameEncoding.maximum))
    }

    @Test(arguments: [(1, 16), (7, 16), (8, 16), (9, 24), (16, 24), (17, 32), (176, 184), (177, 192), (255, 264)])
    func wrappedCounts(plain: Int, wrapped: Int) { #expect(NameEncoding.wrappedCount(plain) == wrapped) }

    @Test(arguments: ["", ".", "..", "/", "a/b", "a/", "a\0", "\0"])
    func refuses(name: String) { #expect(!isValid(Array(name.utf8))) }

    @Test(arguments: ["a", "...", ".a", "..a", "a.", " ", "\n", "lethefs.dir", ".lethefs", "lost+found", "é"])
    func accepts(name: String) { #expect(isValid(Array(name.utf8))) }

    @Test func lengths() {
        #expect(!isValid([]) && isValid([UInt8](repeating: 0x61, count: 255)))
        #expect(!isValid([UInt8](repeating: 0x61, count: 256)))
        #expect(isValid([0xFF]) && isValid([0x80, 0xFE]))
    }

    /// No encrypted name can be taken for a reserved one: those have a character that base64url lacks.
    @Test(arguments: [
        ReservedName.volumeDirectory, ReservedName.directoryHeader, ReservedName.longEntry, ReservedName.longName,
        ReservedName.temporary, ReservedName.lostAndFound,
    ])
    func reservedNamesAreNoBase64URL(name: String) { #expect(name.contains { $0 == "." || $0 == "+" }) }

    @Test(arguments: 1...4095)
    func linkTargets(count: Int) {
        let lower = Base64URL.encodedCount(count + SealedBlob.overhead)
        #expect(LinkEncoding.plainCount(lowerCount: lower) == count)
        #expect(LinkEncoding.isSplit(plainCount: count) == (lower >= LinkEncoding.maximumTarget))
        // Both halves of a split one fit.
        #expect(lower - LinkEncoding.headCount <= LinkEncoding.maximumTarget)
    }
}
