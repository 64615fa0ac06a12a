import KeyManagement
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// Shreddings that fail late: what a certificate would say stays true when they are repeated, or when another one comes.
@Suite struct ShredTests {
    private func finish(
        _ test: TestVolume, resuming work: PendingWork? = nil
    ) throws(VolumeError) -> VolumeMount.Shredded {
        try test.mount.finishShredding(
            .root, resuming: work, editing: RewrapTests.editing(test), control: SweepControl())
    }

    private func failure(_ test: TestVolume, resuming work: PendingWork? = nil) -> VolumeError? {
        RewrapTests.error { () throws(VolumeError) in _ = try finish(test, resuming: work) }
    }

    private func note(_ test: TestVolume) -> PendingWork? {
        test.mount.keyring(.root)?.pending.first { $0.kind == .shred }
    }

    /// The lower tree as it is now, to be mounted later: what a backup has.
    private func copy(_ test: TestVolume) throws -> String {
        let path = test.temporary["copy"]
        try copyTree(test.lower, to: path)
        return path
    }

    /// The first one wraps all that is there by a new KEK, and then the owner does not answer. What is deleted next was wrapped by that KEK.
    @Test func anotherOneAfterALateFailure() throws {
        let test = try TestVolume()
        var contents = try RewrapTests.fill(test)
        try test.mount.beginShredding(.root)
        try test.unlink("file5")
        contents["file5"] = nil
        test.cmk.onDestroying { () throws(RootError) in throw RootError(.timedOut, "test") }
        #expect(failure(test) == .keyring(.root(RootError(.timedOut, ""), uri: "test:cmk")))
        #expect(note(test)?.version.rawValue == 2 && note(test)?.flags.contains(.paused) == false)
        test.cmk.onDestroying(nil)
        let copy = try copy(test)
        try test.mount.beginShredding(.root)
        #expect(note(test)?.flags.contains(.paused) == true)
        try test.unlink("file4")
        contents["file4"] = nil
        let shredded = try finish(test)
        #expect(shredded.active.rawValue == 3)
        #expect(shredded.destroyed.map(\.rawValue) == [1, 2] && shredded.refused == shredded.destroyed)
        #expect(note(test) == nil)
        #expect(throws: (any Error).self) { _ = try TestVolume(lower: copy, in: test.temporary, cmk: test.cmk) }
        for (name, bytes) in contents { #expect(try test.read(name) == bytes) }
    }

    /// A command deletes on while another one's shredding is finished up to its last step: its own KEK is newer all the same.
    @Test func eachCommandMakesAKEKOfItsOwn() throws {
        let test = try TestVolume()
        _ = try RewrapTests.fill(test)
        try test.mount.beginShredding(.root)
        try test.mount.beginShredding(.root)
        test.cmk.onDestroying { () throws(RootError) in throw RootError(.timedOut, "test") }
        #expect(failure(test) != nil)
        test.cmk.onDestroying(nil)
        try test.unlink("file5")
        #expect(try finish(test).active.rawValue == 3)
    }

    private func addZone(_ test: TestVolume) throws -> ZoneID {
        let made = try test.mount.makeKeyring(policy: .anyOf, cmks: [test.cmk])
        try test.mount.addZone(made.keyring, made.keys)
        return made.keyring.zone
    }

    private func makeRoot(_ test: TestVolume, _ zone: ZoneID, _ name: String, in parent: Inode? = nil) throws(Errno) {
        let (parent, volume) = (parent ?? test.top, test.volume)
        _ = try test.named(Name(stringLiteral: name)) { (bytes) throws(Errno) in
            try volume.makeDirectory(parent, bytes, mode: 0o755, TestVolume.root, zone: zone)
        }
    }

    /// From the note on, and after a crash, until the files are deleted; other directories are made as ever.
    @Test func noZoneIsMadeWhereFilesAreDeleted() throws {
        let test = try TestVolume()
        _ = try RewrapTests.fill(test)
        let zone = try addZone(test)
        #expect(try test.mount.beginShredding(.root) == [])
        for _ in 0..<2 {
            #expect(throws: Errno.busy) { try makeRoot(test, zone, "ward") }
            #expect(throws: VolumeError.shredding(.root)) { try test.mount.requireNotShredding(test.top) }
            test.volume.forget(try test.makeDirectory("plain"), count: 1)
            try test.removeDirectory("plain")
            try test.crash()
        }
        _ = try finish(test)
        try test.mount.requireNotShredding(test.top)
        try makeRoot(test, zone, "ward")
        let ward = try test.lookUp("ward").inode
        // The zone around it is no matter to what lies in this one.
        try test.mount.beginShredding(.root)
        try makeRoot(test, try addZone(test), "inner", in: ward)
    }

    /// It was not there when it was looked for zones, so its keys would stay: its tree is not deleted until they go, too.
    @Test(arguments: [false, true]) func aZoneThatIsMovedIntoTheTree(isReplaced: Bool) throws {
        let test = try TestVolume()
        let zone = try addZone(test)
        try makeRoot(test, zone, "ward")
        let tree = try test.makeDirectory("tree")
        try test.mount.beginShredding(.root)
        try test.rename("ward", to: "ward", inside: tree)
        func remove() throws(Errno) {
            guard isReplaced else { return try test.removeDirectory("ward", in: tree) }
            test.volume.forget(try test.makeDirectory("other"), count: 1)
            defer { try? test.removeDirectory("other") }
            try test.rename("other", to: "ward", inside: tree)
        }
        #expect(throws: Errno.busy) { try remove() }
        #expect(try test.list(tree) == ["ward"])
        try test.mount.beginShredding(zone)
        try remove()
    }

    /// Nothing was deleted: what waited before waits again.
    @Test func oneThatIsRefusedLeavesTheNotesOfBefore() throws {
        let test = try TestVolume()
        try test.mount.beginShredding(.root)
        let before = test.mount.keyring(.root)?.pending
        let replaced = try test.mount.beginShredding(.root)
        #expect(replaced == before)
        try test.mount.cancelShredding(.root, restoring: replaced, editing: RewrapTests.editing(test))
        #expect(test.mount.keyring(.root)?.pending == before)
        try test.mount.cancelShredding(.root, restoring: [], editing: RewrapTests.editing(test))
        #expect(test.mount.keyring(.root)?.pending == [])
        try makeRoot(test, try addZone(test), "ward")
    }

    /// A version key that another node of the HSM still has: not once is it certified, neither by a repetition nor after a crash.
    @Test(arguments: [false, true]) func aFailedProofIsNotForgotten(crashes: Bool) throws {
        let test = try TestVolume()
        _ = try RewrapTests.fill(test)
        try test.mount.beginShredding(.root)
        try test.unlink("file5")
        test.cmk.onDestroying { false }
        #expect(failure(test) == .notDestroyed(.first))
        #expect(test.mount.keyring(.root)?.keks.map(\.state) == [.destroyed, .active])
        for _ in 0..<2 {
            if crashes { try test.crash() }
            let work = try #require(note(test))
            #expect(failure(test, resuming: work) == .notDestroyed(.first))
        }
        test.cmk.onDestroying(nil)
        let shredded = try finish(test, resuming: note(test))
        #expect(shredded.destroyed == [.first] && shredded.refused == [.first] && shredded.versionKeys == 1)
        #expect(shredded.active.rawValue == 2)
        let keyring = try #require(test.mount.keyring(.root))
        #expect(keyring.pending.isEmpty && !keyring.keks.contains(where: \.isUnproven))
        try test.remount()
    }

    /// The CMK changes between a failed proof and its repetition: the wraps of before are tried all the same.
    @Test func aProofThatOutlivesItsCMK() throws {
        let test = try TestVolume()
        try test.mount.beginShredding(.root)
        test.cmk.onDestroying { false }
        #expect(failure(test) == .notDestroyed(.first))
        let next = try InMemoryCMK("test:next")
        let editing = KeyringEditing(resolve: resolver([test.cmk, next]))
        _ = try test.mount.replaceCMKs(.root, with: [next], editing: editing)
        func again() throws(VolumeError) -> VolumeMount.Shredded {
            try test.mount.finishShredding(.root, resuming: note(test), editing: editing, control: SweepControl())
        }
        #expect(RewrapTests.error { () throws(VolumeError) in _ = try again() } == .notDestroyed(.first))
        test.cmk.onDestroying(nil)
        #expect(try again().refused == [.first])
    }

    /// Links have no key of their own: they get another metadata key, so that old copies of them open no more than those of files.
    @Test func linksAreShredded() throws {
        let test = try TestVolume()
        _ = try RewrapTests.fill(test)
        try test.mount.beginShredding(.root)
        try test.unlink("link")
        test.volume.forget(try test.makeLink("other", to: Array("survives".utf8)), count: 1)
        test.cmk.onDestroying { () throws(RootError) in throw RootError(.timedOut, "test") }
        #expect(failure(test) != nil)
        test.cmk.onDestroying(nil)
        _ = try finish(test, resuming: note(test))
        #expect(test.mount.keyring(.root)?.metadataKeys.map(\.version.rawValue) == [2])
        #expect(try test.mount.coverage(.root).metadata.keys.map(\.rawValue) == [2])
        try test.remount()
        #expect(try test.volume.readLink(try test.lookUp("other").inode) == Array("survives".utf8))
    }

    /// Until the links are sealed anew, no keyring holds their old metadata key under a KEK that outlives the shredding.
    @Test func theOldMetadataKeyStaysUnderItsKEK() throws {
        let test = try TestVolume()
        let editing = RewrapTests.editing(test)
        func holders() -> [UInt32]? { test.mount.keyring(.root)?.metadataKeys.map(\.kekVersion.rawValue) }
        _ = try test.mount.rotateKEK(.root, editing: editing, shred: true)
        #expect(holders() == [1, 2])
        _ = try test.mount.rotateKEK(.root, editing: editing)
        #expect(holders() == [1, 2])
        try test.remount()
        #expect(try finish(test, resuming: note(test)).destroyed == [.first])
        #expect(holders()?.count == 1)
    }
}
