import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

@Suite struct LinkTests {
    /// The lengths around each change of form, and a sample of the others.
    static let lengths = Array(1...40) + [100, 1000] + Array(3030...3050) + [3500, 4000] + Array(4085...4095)

    @Test func targetsOfAllLengths() throws {
        let test = try TestVolume()
        var generator = SeededGenerator(seed: 2)
        var targets: [Name: [UInt8]] = [:]
        for count in Self.lengths {
            let target = generator.bytes(count).map { $0 == 0 ? 1 : $0 }
            let name = Name(stringLiteral: "link\(count)")
            let inode = try test.makeLink(name, to: target)
            #expect(try test.volume.readLink(inode) == target)
            #expect(try test.volume.attributes(inode).st_size == off_t(count))
            targets[name] = target
        }
        try test.remount()
        for (name, target) in targets {
            let entry = try test.lookUp(name)
            #expect(try test.volume.readLink(entry.inode) == target)
            #expect(entry.attributes.st_size == off_t(target.count))
        }
        #expect(test.check().findings == [])
        for name in targets.keys { try test.unlink(name) }
        // No tail is left.
        #expect(try test.lowerNames(".lethefs/links") == [])
    }

    @Test func limits() throws {
        let test = try TestVolume()
        #expect(throws: Errno.nameTooLong) { _ = try test.makeLink("x", to: [UInt8](repeating: 0x61, count: 4096)) }
        #expect(throws: Errno.noEntry) { _ = try test.makeLink("x", to: []) }
        _ = try test.makeLink("x", to: [0x61])
        #expect(throws: Errno.exists) { _ = try test.makeLink("x", to: [UInt8](repeating: 0x61, count: 4000)) }
        #expect(try test.lowerNames(".lethefs/links") == [])
    }

    @Test(arguments: [10, 4000])
    func aChangedTargetIsDamage(count: Int) throws {
        let test = try TestVolume()
        let inode = try test.makeLink("x", to: [UInt8](repeating: 0x61, count: count))
        let lower = test.lower + "/" + (try #require(try test.lowerNames().first { !$0.contains(".") }))
        let directory = try Lower.open(path: test.lower, flags: O_RDONLY | O_DIRECTORY)
        var text = try Lower.readLink(directory, String(lower.dropFirst(test.lower.count + 1)))
        text[50] = text[50] == 0x41 ? 0x42 : 0x41
        try #require(unlink(lower) == 0)
        try #require(symlink(String(decoding: text, as: UTF8.self), lower) == 0)
        test.volume.forget(inode, count: 1)
        let again = try test.lookUp("x").inode
        #expect(throws: Errno.io) { try test.volume.readLink(again) }
        #expect(test.takeDamages().contains { $0.object == .linkTarget })
    }

    @Test func hardLinks() throws {
        let test = try TestVolume()
        let file = try test.create("a")
        try file.write([1, 2, 3])
        let second = try test.link(file.inode, as: "b")
        #expect(second === file.inode)
        let directory = try test.makeDirectory("dir")
        let long = Name([UInt8](repeating: 0x6C, count: 255))
        _ = try test.link(file.inode, as: long, in: directory)
        #expect(try test.volume.attributes(file.inode).st_nlink == 3)
        try test.unlink("a")
        try file.write([9], at: 1)
        file.close()
        try test.remount()
        let again = try test.lookUp("dir").inode
        #expect(try test.read("b") == [1, 9, 3])
        #expect(try test.read(long, in: again) == [1, 9, 3])
        #expect(throws: Errno.exists) { _ = try test.link(try test.lookUp("b").inode, as: "dir") }
        #expect(throws: Errno.perm) { _ = try test.link(again, as: "hard") }
        try test.unlink("b")
        try test.unlink(long, in: again)
        #expect(test.check().files == 0)
    }

    /// A file without a name works until its last handle goes.
    @Test func unlinkedWhileOpen() throws {
        let test = try TestVolume()
        let file = try test.create("gone")
        try file.write([1, 2, 3])
        try test.unlink("gone")
        try test.write("gone", [7])
        try file.write([4, 5], at: 5000)
        #expect(try file.readAll().count == 5002)
        #expect(try test.volume.attributes(file.inode).st_nlink == 0)
        try file.sync()
        try file.truncate(to: 1)
        #expect(try file.readAll() == [1])
        file.close()
        #expect(try test.read("gone") == [7])
        #expect(test.check().findings == [])
    }
}
