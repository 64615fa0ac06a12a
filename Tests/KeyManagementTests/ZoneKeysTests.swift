import Ciphers
import KeyManagement
import TestSupport
import Testing
import VolumeFormat

@Suite struct ZoneKeysTests {
    @Test func slotsOfEachVersionOpen() throws {
        var sample = try SampleKeyring(.anyOf, cmkCount: 1)
        let (old, oldDEK) = try sample.keys.makeSlot(version: .first, now: 1)
        try sample.addKEK()
        let keys = try sample.unlocking.unlock(sample.keyring)
        let (new, newDEK) = try keys.makeSlot(version: .first, now: 1)
        #expect(new.kekVersion == KeyVersion(rawValue: 2))
        #expect(try keys.unwrap(old).array() == oldDEK.key.array())
        #expect(try keys.unwrap(new).array() == newDEK.key.array())
        // Keys that know no newer version say so.
        #expect(code(sample.keys, new) == .unknownKey)
    }

    @Test func aWrongSlotIsNotAuthentic() throws {
        let sample = try SampleKeyring(.anyOf, cmkCount: 1)
        let other = try SampleKeyring(.anyOf, cmkCount: 1)
        var (slot, _) = try sample.keys.makeSlot(version: .first, now: 1)
        #expect(code(other.keys, slot) == .notAuthentic)
        for index in 0..<WrappedKey.size {
            var bytes = slot.wrapped.bytes
            bytes[index] ^= 4
            let kept = slot.wrapped
            slot.wrapped = WrappedKey(bytes)
            #expect(code(sample.keys, slot) == .notAuthentic)
            slot.wrapped = kept
        }
        #expect(code(sample.keys, slot) == nil)
    }

    /// A DEK that goes to another zone is not dated after it went there.
    @Test func anAdoptedSlotOpens() throws {
        let (source, destination) = (
            try SampleKeyring(.anyOf, cmkCount: 1).keys, try SampleKeyring(.anyOf, cmkCount: 1).keys
        )
        let (slot, dek) = try source.makeSlot(version: .first, now: 1000)
        for (now, created) in [(999, 999), (1000, 1000), (2000, 1000)] as [(UInt64, UInt64)] {
            let adopted = try destination.adopt(slot, from: source, now: now)
            #expect(adopted.created == created && adopted.version == slot.version)
            #expect(try destination.unwrap(adopted).array() == dek.key.array())
            #expect(code(source, adopted) == .notAuthentic)
        }
    }

    @Test func deksDiffer() throws {
        let sample = try SampleKeyring(.anyOf, cmkCount: 1)
        let keys = try (0..<100).map { _ in try sample.keys.makeSlot(version: .first, now: 1).dek.key.array() }
        #expect(Set(keys).count == 100)
    }

    private func code(_ keys: ZoneKeys, _ slot: DEKSlot) -> FormatError.Code? {
        do throws(FormatError) {
            _ = try keys.unwrap(slot).array()
            return nil
        } catch { return error.code }
    }
}
