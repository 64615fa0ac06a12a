import Ciphers
import KeyManagement
import Secrets
import TestSupport
import Testing
import VolumeFormat

/// Changes to a keyring: what each version opens before and after, and that nothing leads back.
@Suite struct KeyringEditingTests {
    /// A keyring as its owner changes it: edited on a copy, sealed, opened again.
    struct Case {
        let cmks: [InMemoryCMK]
        var keyring: ZoneKeyring
        var keys: ZoneKeys
        var editing: KeyringEditing { KeyringEditing(resolve: resolver(cmks)) }
        var unlocking: KeyringUnlocking { KeyringUnlocking(resolve: resolver(cmks)) }

        init(_ policy: ZoneKeyring.Policy = .anyOf, count: Int = 1, makesVersionKeys: Bool = true) throws {
            cmks = try (0..<8).map { try InMemoryCMK("test:\($0)", makesVersionKeys: makesVersionKeys) }
            (keyring, keys) = try KeyringUnlocking(resolve: resolver(cmks)).create(
                volume: UniqueID(high: 1, low: 2), zone: .root, policy: policy, cmks: Array(cmks.prefix(count)), now: 1)
        }

        /// Takes a change over, as a mount does: sealed under every usable version, and read back by real unwraps.
        mutating func commit(_ changed: ZoneKeyring, _ newKeys: ZoneKeys) throws {
            keyring = changed
            keyring.generation += 1
            keyring.macs = try keyring.keks.filter(\.state.mayDecrypt).map { entry in
                .init(
                    kekVersion: entry.version,
                    code: try #require(newKeys.kek(entry.version)).code(for: keyring.authenticatedBytes))
            }
            let stored = try ZoneKeyring(parsing: keyring.encoded)
            #expect(stored == keyring)
            keys = try unlocking.unlock(stored)
        }

        mutating func addKEK(_ old: KeyState = .deactivated) throws {
            var changed = keyring
            let new = try editing.addKEK(to: &changed, keys, old: old, now: 10)
            try commit(changed, new)
        }
    }

    @Test(arguments: ZoneKeyring.Policy.allCases, [1, 2, 3])
    func aNewVersionWrapsAndTheOldOneStillOpens(policy: ZoneKeyring.Policy, count: Int) throws {
        var test = try Case(policy, count: count)
        let (slot, dek) = try test.keys.makeSlot(version: .first, now: 5)
        try test.addKEK(.compromised)
        #expect(test.keyring.keks.map(\.state) == [.compromised, .active])
        #expect(test.keys.activeKEK.version.rawValue == 2)
        #expect(try test.keys.unwrap(slot).array() == dek.key.array())
        let rewrapped = try test.keys.rewrap(slot)
        #expect(rewrapped.kekVersion.rawValue == 2 && rewrapped.version == slot.version && rewrapped.created == 5)
        #expect(try test.keys.unwrap(rewrapped).array() == dek.key.array())
        #expect(try test.keys.rewrap(rewrapped) == rewrapped)
        #expect(test.keyring.metadataKeys.allSatisfy { $0.kekVersion.rawValue == 2 })
    }

    @Test func destroyedMeansThatNoCopyOpens() throws {
        var test = try Case()
        let before = test.keyring
        let (slot, _) = try test.keys.makeSlot(version: .first, now: 5)
        try test.addKEK()
        var changed = test.keyring
        let new = try test.editing.destroyKEK(.first, in: &changed, test.keys, now: 20)
        try test.commit(changed, new)
        #expect(throws: FormatError(.unknownKey, "DEK slot")) { _ = try test.keys.unwrap(slot).array() }
        // The keyring forgot it; an old copy has not, until the version key is gone.
        #expect(!test.editing.isRefused(.first, with: before))
        #expect(try test.editing.destroyVersionKeys(.first, of: { test.keyring }) == 1)
        #expect(test.editing.isRefused(.first, with: before))
        #expect(test.unlocking.failure(before) == .root(RootError(.versionDestroyed, ""), uri: "test:0"))
        #expect(test.unlocking.failure(test.keyring) == nil)
        #expect(try test.editing.destroyVersionKeys(.first, of: { test.keyring }) == 0)
    }

    @Test func whatIsInUseIsNotDestroyed() throws {
        var test = try Case()
        try test.addKEK()
        var changed = test.keyring
        for version in [2, 3] as [UInt32] {
            #expect(throws: KeyringError.inUse) {
                _ = try test.editing.destroyKEK(KeyVersion(rawValue: version), in: &changed, test.keys, now: 20)
            }
        }
        #expect(changed == test.keyring)
    }

    /// Without version keys the CMK alone wraps, and the keyring goes on saying so after the version is destroyed.
    @Test func anUnguardedVersionStaysKnown() throws {
        var test = try Case(makesVersionKeys: false)
        #expect(test.keyring.unguardedKEKs == [.first])
        try test.addKEK()
        var changed = test.keyring
        let new = try test.editing.destroyKEK(.first, in: &changed, test.keys, now: 20)
        try test.commit(changed, new)
        #expect(test.keyring.unguardedKEKs.map(\.rawValue) == [1, 2])
        #expect(try Case().keyring.unguardedKEKs.isEmpty)
    }

    @Test(arguments: ZoneKeyring.Policy.allCases, [1, 2])
    func anotherCMK(policy: ZoneKeyring.Policy, count: Int) throws {
        var test = try Case(policy, count: count)
        try test.addKEK()
        let before = test.keyring
        for round in 1...6 {
            var changed = test.keyring
            let cmks = (0..<count).map { test.cmks[(round * count + $0) % 8] }
            try test.editing.replaceCMKs(of: &changed, with: cmks, now: UInt64(round))
            try test.commit(changed, test.keys)
            #expect(test.keyring.cmks.count { $0.isInUse } == count)
            // The former ones are not asked any more.
            for cmk in test.cmks where !cmks.contains(where: { $0 === cmk }) { cmk.refuse(.destroyed) }
            #expect(test.unlocking.failure(test.keyring) == nil)
            for cmk in test.cmks { cmk.refuse(nil) }
        }
        #expect(test.keyring.cmks.count <= ZoneKeyring.maximumCMKs)
        // Those beside the former CMKs go, those in use stay.
        #expect(try test.editing.destroyVersionKeys(.first, of: { test.keyring }) == count * 6)
        #expect(try test.editing.destroyVersionKeys(.first, of: { test.keyring }) == 0)
        #expect(test.unlocking.failure(test.keyring) == nil)
        #expect(test.editing.isRefused(.first, with: before))
    }

    /// What was noted of a CMK does not keep a new KEK from it where no other is left: its owner has the last word.
    @Test func aCMKThatIsNotedAsDestroyedAndLives() throws {
        var test = try Case(.anyOf, count: 2)
        test.keyring.cmks[0].history.enter(.destroyed, at: 5)
        try test.commit(test.keyring, test.keys)
        try test.addKEK()
        #expect(test.keyring.keks[1].wraps.map(\.cmk) == [1])
        test.keyring.cmks[1].history.enter(.destroyed, at: 6)
        try test.commit(test.keyring, test.keys)
        try test.addKEK()
        #expect(test.keyring.keks[2].wraps.map(\.cmk) == [0, 1])
        for cmk in test.cmks { cmk.refuse(.destroyed) }
        var changed = test.keyring
        #expect(throws: KeyringError.root(RootError(.destroyed, ""), uri: "test:0")) {
            _ = try test.editing.addKEK(to: &changed, test.keys, now: 10)
        }
    }

    /// A CMK that this host does not know may well hold its version keys: they do not count as destroyed. Nor has anybody said no.
    @Test func aCMKThatThisHostDoesNotKnow() throws {
        var test = try Case()
        var changed = test.keyring
        try test.editing.replaceCMKs(of: &changed, with: [test.cmks[1]], now: 5)
        try test.commit(changed, test.keys)
        let known = test.cmks[1]
        let editing = KeyringEditing { (uri) throws(RootError) in
            guard uri == known.uri else { throw RootError(.unknownRoot, uri) }
            return known
        }
        let unknown = KeyringError.root(RootError(.unknownRoot, ""), uri: "test:0")
        #expect(throws: unknown) { _ = try editing.destroyVersionKeys(.first, of: { test.keyring }) }
        #expect(!unknown.isRefusal)
        // Without its half of a KEK a version key beside it opens nothing.
        test.keyring.cmks[0].history.enter(.destroyed, at: 6)
        #expect(try editing.destroyVersionKeys(.first, of: { test.keyring }) == 0)
    }

    @Test func metadataKeys() throws {
        var test = try Case()
        var changed = test.keyring
        var new = try test.editing.addMetadataKey(to: &changed, test.keys, now: 30)
        try test.commit(changed, new)
        #expect(test.keys.currentMetadata?.version.rawValue == 2 && test.keys.metadata(.first) != nil)
        try test.addKEK()
        #expect(test.keys.metadata(.first) != nil)
        changed = test.keyring
        new = test.editing.dropOldMetadataKeys(from: &changed, test.keys)
        try test.commit(changed, new)
        #expect(test.keys.metadata(.first) == nil && test.keys.currentMetadata?.version.rawValue == 2)
    }

    /// Pending work is under the keyring's MACs: changed, added or taken away, it is refused.
    @Test func pendingWorkCannotBeEdited() throws {
        var test = try Case()
        var changed = test.keyring
        changed.pending = [
            PendingWork(.shred, version: KeyVersion(rawValue: 2), started: 7),
            PendingWork(
                .reencrypt, version: .first, started: 8, flags: [.paused], rate: 9, scope: UniqueID(high: 3, low: 4)),
        ]
        try test.commit(changed, test.keys)
        #expect(test.keyring.pending == changed.pending)
        let whole = test.keyring.encoded
        for index in whole.indices {
            var edited = whole
            edited[index] ^= 1
            guard let keyring = try? ZoneKeyring(parsing: edited) else { continue }
            #expect(test.unlocking.failure(keyring) != nil, "byte \(index)")
        }
        var without = test.keyring
        without.pending = []
        #expect(test.unlocking.failure(without) == .notAuthentic)
    }
}
