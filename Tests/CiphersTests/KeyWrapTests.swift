import Ciphers
import Secrets
import TestSupport
import Testing

@Suite struct KeyWrapTests {
    @Test func everyBitOfAWrapIsAuthenticated() throws {
        let kek = try RandomBytes.key()
        let key = try RandomBytes.key()
        let other = try RandomBytes.key()
        let wrapped = try KeyWrap.wrap(key, under: kek)
        #expect(wrapped.count == KeyWrap.wrappedKeySize)
        #expect(try wrapped.withUnsafeBytes { try KeyWrap.unwrap($0, under: kek).array() } == key.array())
        for bit in 0..<(wrapped.count * 8) {
            var changed = wrapped
            changed[bit / 8] ^= 1 << (bit % 8)
            let isRefused = refused(changed, kek)
            #expect(isRefused)
        }
        let isRefused = refused(wrapped, other)
        #expect(isRefused)
    }

    @Test(arguments: [0, 1, 7, 8, 16, 24, 32, 39, 41, 48, 4096])
    func onlyAWrapped256BitKeyIsOne(count: Int) throws {
        let kek = try RandomBytes.key()
        let zerosAreRefused = refused([UInt8](repeating: 0, count: count), kek)
        #expect(zerosAreRefused)
        guard count % 8 == 0, count >= 24, count < 4096 else { return }
        let plaintext = [UInt8](repeating: 1, count: count - 8)
        let wrapped = try #require(try VectorCheck.run(.kw, encrypt: true, under: kek, plaintext))
        let isRefused = refused(wrapped, kek)
        #expect(isRefused == (count != KeyWrap.wrappedKeySize))
    }

    @Test(arguments: 1...255)
    func namesOfEachLength(count: Int) throws {
        var generator = SeededGenerator(seed: UInt64(count))
        let kek = try RandomBytes.key()
        let name = generator.bytes(count)
        let wrapped = try #require(try VectorCheck.run(.kwp, encrypt: true, under: kek, name))
        #expect(wrapped.count == (count + 7) / 8 * 8 + 8)
        #expect(try VectorCheck.run(.kwp, encrypt: true, under: kek, name) == wrapped)
        #expect(try VectorCheck.run(.kwp, encrypt: false, under: kek, wrapped) == name)
        var changed = wrapped
        changed[generator.below(changed.count)] ^= 1
        #expect(try VectorCheck.run(.kwp, encrypt: false, under: kek, changed) == nil)
    }

    /// A context that refused something still does the next one right.
    @Test func aContextGoesOnAfterARefusal() throws {
        let kek = try RandomBytes.key()
        let name = Array("name".utf8)
        let wrapped = try #require(try VectorCheck.run(.kwp, encrypt: true, under: kek, name))
        let context = try WrapContext(.kwp, encrypt: false, under: kek)
        var output = [UInt8](repeating: 0, count: 64)
        for round in 0..<10 {
            let input = round % 2 == 0 ? wrapped : [UInt8](repeating: 9, count: 16)
            let count = try? input.withUnsafeBytes { input in
                try output.withUnsafeMutableBytes { try context.run(input, $0) }
            }
            #expect(count == (round % 2 == 0 ? name.count : nil))
        }
    }

    private func refused(_ wrapped: [UInt8], _ kek: borrowing SecretKey) -> Bool {
        do {
            return try wrapped.withUnsafeBytes { try KeyWrap.unwrap($0, under: kek).array() }.isEmpty
        } catch { return (error as? CipherError)?.code == .notAuthentic }
    }
}
