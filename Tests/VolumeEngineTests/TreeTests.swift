import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

@Suite struct TreeTests {
    private static let long = Name([UInt8](repeating: 0x6C, count: 230))

    @Test(arguments: [("a", "b"), ("a", Self.long), (Self.long, "b")] as [(Name, Name)])
    func renames(old: Name, new: Name) throws {
        let test = try TestVolume()
        let directory = try test.makeDirectory("dir")
        try test.write(old, [1])
        try test.rename(old, to: new)
        #expect(try test.read(new) == [1])
        try test.rename(new, to: old, inside: directory)
        #expect(try test.list() == ["dir"] && test.list(directory) == [old])
        try test.write(new, [2], in: directory)
        try test.rename(old, in: directory, to: new, inside: directory)
        #expect(try test.read(new, in: directory) == [1])
        #expect(throws: Errno.noEntry) { try test.rename(old, to: new) }
        try test.remount()
        #expect(try test.read(new, in: try test.lookUp("dir").inode) == [1])
        #expect(test.check().findings == [])
    }

    @Test func noReplaceAndExchange() throws {
        let test = try TestVolume()
        try test.write("a", [1])
        try test.write(Self.long, [2])
        #expect(throws: Errno.exists) { try test.rename("a", to: Self.long, flags: Int32(LINUX_RENAME_NOREPLACE)) }
        try test.rename("a", to: Self.long, flags: Int32(LINUX_RENAME_EXCHANGE))
        #expect(try test.read("a") == [2] && test.read(Self.long) == [1])
        #expect(throws: Errno.noEntry) { try test.rename("a", to: "none", flags: Int32(LINUX_RENAME_EXCHANGE)) }
        #expect(throws: Errno.invalid) { try test.rename("a", to: "b", flags: 4) }
        let directory = try test.makeDirectory("dir")
        try test.write("in", [3], in: directory)
        try test.rename("a", to: "dir", flags: Int32(LINUX_RENAME_EXCHANGE))
        #expect(try test.read("dir") == [2])
        #expect(try test.read("in", in: directory) == [3])
        try test.remount()
        #expect(try test.read("in", in: try test.lookUp("a").inode) == [3])
        #expect(test.check().findings == [])
    }

    @Test func aDirectoryOverAnother() throws {
        let test = try TestVolume()
        let (source, target) = (try test.makeDirectory("source"), try test.makeDirectory("target"))
        try test.write("in", [1], in: source)
        try test.write("other", [2], in: target)
        #expect(throws: Errno.notEmpty) { try test.rename("source", to: "target") }
        try test.unlink("other", in: target)
        try test.rename("source", to: "target")
        #expect(try test.list() == ["target"])
        #expect(try test.read("in", in: source) == [1])
        try test.write("file", [3])
        #expect(throws: Errno.isDirectory) { try test.rename("file", to: "target") }
        #expect(throws: Errno.notDirectory) { try test.rename("target", to: "file") }
        #expect(Set(try test.lowerNames()).filter { $0.hasPrefix(ReservedName.temporary) } == [])
        try test.remount()
        let report = test.check()
        #expect(report.directories == 2 && report.files == 2 && report.bytes == 2 && report.findings == [])
    }

    @Test func directories() throws {
        let test = try TestVolume()
        var inode = test.top
        for depth in 0..<40 {
            inode = try test.makeDirectory(Name(stringLiteral: "level\(depth)"), in: inode)
        }
        try test.write("deep", [1], in: inode)
        #expect(throws: Errno.notEmpty) { try test.removeDirectory("level0") }
        #expect(throws: Errno.isDirectory) { try test.unlink("level0") }
        #expect(throws: Errno.exists) { _ = try test.makeDirectory("level0") }
        try test.remount()
        inode = test.top
        for depth in 0..<40 { inode = try test.lookUp(Name(stringLiteral: "level\(depth)"), in: inode).inode }
        #expect(try test.read("deep", in: inode) == [1])
        #expect(throws: Errno.notDirectory) { try test.lookUp("x", in: try test.lookUp("deep", in: inode).inode) }
        #expect(test.check().directories == 41)
    }

    /// What the kernel forgets is forgotten: only the root is known at the end.
    @Test func manyInodesAndForget() throws {
        let test = try TestVolume(inMemory: true)
        let directory = try test.makeDirectory("dir")
        for index in 0..<3000 { try test.write(Name(stringLiteral: "file\(index)"), [1], in: directory) }
        let inodes = try (0..<3000).map { try test.lookUp(Name(stringLiteral: "file\($0)"), in: directory).inode }
        for index in 0..<1500 { _ = try test.lookUp(Name(stringLiteral: "file\(index)"), in: directory) }
        #expect(test.volume.knownInodes > 3000)
        // Page trees that are not stored keep their inodes.
        try test.volume.storeTrees()
        for (index, inode) in inodes.enumerated() { test.volume.forget(inode, count: index < 1500 ? 2 : 1) }
        #expect(test.volume.knownInodes == 2)
        for index in 0..<3000 where index % 2 == 0 {
            try test.unlink(Name(stringLiteral: "file\(index)"), in: directory)
        }
        test.volume.forget(directory, count: 1)
        #expect(test.volume.knownInodes == 1)
        #expect(test.check().files == 1500)
        #expect(test.volume.knownInodes == 1)
    }

    /// The same after files were removed and renamed while they were known.
    @Test func forgetAfterRemoval() throws {
        let test = try TestVolume(inMemory: true)
        let file = try test.create("a")
        let directory = try test.makeDirectory("dir")
        _ = try test.makeLink("link", to: [0x61])
        try test.rename("a", to: "b", inside: directory)
        try test.unlink("b", in: directory)
        try test.removeDirectory("dir")
        let link = try test.lookUp("link").inode
        try test.unlink("link")
        file.close()
        test.volume.forget(link, count: 2)
        test.volume.forget(directory, count: 1)
        #expect(test.volume.knownInodes == 1)
    }

    @Test func fewHandlesServeManyDirectories() throws {
        let test = try TestVolume(inMemory: true)
        for index in 0..<1500 {
            let directory = try test.makeDirectory(Name(stringLiteral: "dir\(index)"))
            try test.write("in", [UInt8(index & 255)], in: directory)
        }
        for index in stride(from: 0, to: 1500, by: 7) {
            let directory = try test.lookUp(Name(stringLiteral: "dir\(index)")).inode
            #expect(try test.read("in", in: directory) == [UInt8(index & 255)])
        }
        let open = try test.openDescriptors()
        #expect(open < 1200, "\(open) descriptors")
    }

    /// A disk on which no name finds room is made free again by removing what is there.
    @Test func directoriesGoFromAFullDisk() throws {
        let test = try TestVolume(inMemory: true)
        _ = try test.makeDirectory("directory")
        FaultInjection.arm(nth: 1, of: [.renameat2], fault: .errno(.noSpace))
        let removed = Result { try test.removeDirectory("directory") }
        _ = FaultInjection.disarm()
        try removed.get()
        #expect(try test.list().isEmpty)
        #expect(test.check().findings.isEmpty)
        try test.remount()
        #expect(test.check().leftovers.isEmpty)
    }
}
