import Storage
import TestSupport
import Testing
import VolumeEngine

@Suite struct MountLifetimeTests {
    /// A mount that is gone keeps no descriptor of the lower tree: what it lay on can be unmounted.
    @Test func letsGoOfTheLowerTree() throws {
        let first = try TestVolume()
        let inside = try first.makeDirectory("dir")
        try first.write("file", [1, 2, 3], in: inside)
        first.volume.forget(inside, count: 1)
        try first.close()
        let (lower, cmk, temporary) = (first.lower, first.cmk, first.temporary)
        first.drop()
        #expect(try TestVolume.openDescriptors(in: lower) == 0)
        let second = try TestVolume(lower: lower, in: temporary, cmk: cmk)
        #expect(try second.list() == ["dir"])
    }

    /// Whoever is in a directory that was removed sees it without a link, may close and change it, and is told of no damage.
    @Test func removedDirectories() throws {
        var options = Volume.Options()
        options.handleCapacity = 2
        let test = try TestVolume(options: options)
        for number in 0..<6 {
            let inode = try test.makeDirectory(Name("d\(number)"))
            try test.removeDirectory(Name("d\(number)"))
            #expect(try test.volume.attributes(inode).st_nlink == 0, "directory \(number)")
            _ = try test.volume.openDirectory(inode)
            var changes = AttributeChanges()
            changes.mode = 0o700
            #expect(try test.volume.setAttributes(inode, changes).st_mode & 0o777 == 0o700)
            #expect(throws: Errno.noEntry) { _ = try test.list(inode) }
        }
        #expect(test.takeDamages() == [])
    }

    /// A rename over an empty directory that fails at its second step has done nothing.
    @Test func aRenameOverADirectoryFails() throws {
        let test = try TestVolume()
        let from = try test.makeDirectory("from")
        try test.write("inside", [1], in: from)
        _ = try test.makeDirectory("to")
        defer { FaultInjection.disarm() }
        FaultInjection.arm(nth: 2, of: [.renameat2], fault: .errno(.io))
        #expect(throws: Errno.io) { try test.rename("from", to: "to") }
        FaultInjection.disarm()
        #expect(try test.list() == ["from", "to"])
        #expect(try test.list(test.lookUp("from").inode) == ["inside"])
        #expect(try test.list(test.lookUp("to").inode) == [])
        // With a full disk the replaced one goes in its place.
        FaultInjection.arm(nth: 2, of: [.renameat2], fault: .errno(.noSpace))
        try test.rename("from", to: "to")
        FaultInjection.disarm()
        #expect(try test.list() == ["to"])
        #expect(try test.list(test.lookUp("to").inode) == ["inside"])
        #expect(test.check().findings == [])
    }
}
