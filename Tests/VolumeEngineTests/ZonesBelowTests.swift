import CLinux
import KeyManagement
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// The zones of a tree that is to be shredded.
@Suite struct ZonesBelowTests {
    @Test func zonesBelow() throws {
        let test = try TestVolume()
        let tree = try test.makeDirectory("tree")
        let deep = try test.makeDirectory("deep", in: tree)
        try test.write("file", [1, 2, 3], in: deep)
        #expect(try zones(test, tree) == [.root])
        let first = try addZone(test, "ward", in: deep)
        let ward = try test.lookUp("ward", in: deep).inode
        let second = try addZone(test, "inner", in: ward)
        let beside = try addZone(test, "beside", in: test.top)
        #expect(try zones(test, tree) == [.root, first, second])
        #expect(try zones(test, ward) == [first, second])
        #expect(try zones(test, test.top) == [.root, first, second, beside])
        // What lies in a zone that is closed is not known.
        try test.volume.zone(second).close(.keyRevoked)
        test.volume.forgetKeys(of: test.volume.retainInodes(of: second))
        #expect(RewrapTests.error { () throws(VolumeError) in _ = try zones(test, tree) } != nil)
    }

    private func zones(_ test: TestVolume, _ directory: Inode) throws(VolumeError) -> Set<ZoneID> {
        try test.mount.zones(of: directory, control: SweepControl())
    }

    private func addZone(_ test: TestVolume, _ name: String, in parent: Inode) throws -> ZoneID {
        let (keyring, keys) = try test.mount.makeKeyring(policy: .anyOf, cmks: [test.cmk])
        try test.mount.addZone(keyring, keys)
        _ = try Array(name.utf8).withUnsafeBytes { (bytes) throws(Errno) in
            try test.volume.makeDirectory(parent, bytes, mode: 0o755, TestVolume.root, zone: keyring.zone)
        }
        return keyring.zone
    }
}
