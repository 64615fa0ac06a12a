import Secrets
import Testing

/// One at a time: they look at the arena that all keys share.
@Suite(.serialized) struct SecretKeyTests {
    private struct Refused: Error {}
    private static let pattern = [UInt8](repeating: 0xC3, count: SecretKey.size)

    private func makeKey() -> SecretKey { SecretKey { $0.copyBytes(from: Self.pattern) } }

    private func slot(_ key: borrowing SecretKey) -> UnsafeRawPointer? { key.withBytes { $0.baseAddress } }

    private func bytes(at slot: UnsafeRawPointer?) -> [UInt8] {
        Array(UnsafeRawBufferPointer(start: slot, count: SecretKey.size))
    }

    /// Another test's key may take the slot at once, so the old bytes must be gone each time, and be zeros at least once.
    @Test func releaseWipesTheSlot() throws {
        var wasZero = false
        for _ in 0..<1000 {
            var slot: UnsafeRawPointer?
            do {
                let key = makeKey()
                slot = self.slot(key)
                #expect(key.withBytes { $0.elementsEqual(Self.pattern) })
            }
            let left = bytes(at: slot)
            #expect(left != Self.pattern)
            wasZero = wasZero || left.allSatisfy { $0 == 0 }
        }
        #expect(wasZero)
    }

    @Test func aNewKeyStartsFromZeros() {
        for _ in 0..<1000 {
            _ = makeKey()
            let key = SecretKey { _ in }
            #expect(key.withBytes { $0.allSatisfy { $0 == 0 } })
        }
    }

    @Test func aFailedFillReleasesAndWipes() {
        var slot: UnsafeRawPointer?
        #expect(throws: Refused.self) {
            _ = try SecretKey { (bytes) throws(Refused) in
                bytes.copyBytes(from: Self.pattern)
                slot = UnsafeRawPointer(bytes.baseAddress)
                throw Refused()
            }
        }
        #expect(bytes(at: slot) != Self.pattern)
    }

    @Test func copiesAreIndependent() {
        let copy: SecretKey
        do {
            let key = makeKey()
            copy = key.copy()
            #expect(slot(copy) != slot(key))
        }
        #expect(copy.withBytes { $0.elementsEqual(Self.pattern) })
    }

    /// Other tests hold keys at the same time, but nowhere near as many.
    @Test func nothingLeaks() {
        let before = SecretArena.shared.liveSlots
        for _ in 0..<200_000 { _ = makeKey().copy() }
        #expect(SecretArena.shared.liveSlots < before + 20_000)
    }

    @Test func liveSlotsCount() {
        // The difference that 50,000 keys make is far above what other tests do meanwhile.
        final class Holder { let key = SecretKey { _ in } }
        let before = SecretArena.shared.liveSlots
        var keys = (0..<50_000).map { _ in Holder() }
        #expect(SecretArena.shared.liveSlots > before + 30_000)
        #expect(Set(keys.map { $0.key.withBytes { $0.baseAddress } }).count == 50_000)
        keys = []
        #expect(SecretArena.shared.liveSlots < before + 20_000)
    }
}
