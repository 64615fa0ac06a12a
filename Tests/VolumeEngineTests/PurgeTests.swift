import KeyManagement
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// What is left to destroy in tokens, while keyrings change.
@Suite struct PurgeTests {
    /// A CMK is rotated while a purge waits for another CMK's token: the version keys that the new keyring uses stay.
    @Test func aNewCMKComesWhileATokenIsSlow() throws {
        let test = try TestVolume()
        try test.write("file", [1, 2, 3])
        let former = test.cmk
        let used = try InMemoryCMK("test:used")
        let next = try InMemoryCMK("test:next", beside: used)
        let editing = KeyringEditing(resolve: resolver([former, used, next]))
        // The purge of this rotation does not come to its end.
        former.onDestroying { () throws(RootError) in throw RootError(.timedOut, "test") }
        var replaced = 0
        #expect(throws: VolumeError.self) {
            _ = try test.mount.replaceCMKs(.root, with: [used], editing: editing) { replaced += 1 }
        }
        #expect(replaced == 1, "the keyring is stored all the same")
        let mount = test.mount
        former.onDestroying { () throws(RootError) in
            former.onDestroying(nil)
            do { _ = try mount.replaceCMKs(.root, with: [next], editing: editing) } catch {
                throw RootError(.failed, "\(error)")
            }
            return true
        }
        _ = try mount.purge(.root, editing: editing)
        let keyring = try #require(mount.keyring(.root))
        #expect(keyring.cmks.filter(\.isInUse).map(\.uri) == ["test:next"] && keyring.pending.isEmpty)
        let keys = try KeyringUnlocking(resolve: resolver([next])).unlock(keyring)
        #expect(keys.activeKEK.version == .first)
    }

    /// A token that does not answer for long has one note for each version, however often it is tried.
    @Test func oneNoteForAVersion() throws {
        let test = try TestVolume()
        let next = try (0..<5).map { try InMemoryCMK("test:\($0)") }
        let editing = KeyringEditing(resolve: resolver([test.cmk] + next))
        test.cmk.onDestroying { () throws(RootError) in throw RootError(.timedOut, "test") }
        for cmk in next {
            #expect(throws: VolumeError.self) {
                _ = try test.mount.replaceCMKs(.root, with: [cmk], editing: editing)
            }
        }
        #expect(test.mount.keyring(.root)?.pending.map(\.version) == [.first])
        test.cmk.onDestroying(nil)
        _ = try test.mount.purge(.root, editing: editing)
        #expect(test.mount.keyring(.root)?.pending == [])
    }
}
