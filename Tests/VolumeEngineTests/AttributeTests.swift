import CLinux
import Glibc
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

@Suite struct AttributeTests {
    static let values: [(String, [UInt8])] = [
        ("user.a", []), ("user.b", [0]), ("user.c", [UInt8](repeating: 7, count: 1000)), ("user.é", [1, 2]),
        ("user." + String(repeating: "n", count: 250), [3]), ("security.x", [4]), ("trusted.y", [5]),
    ]

    @Test func onFilesAndDirectories() throws {
        let test = try TestVolume()
        try test.write("file", [])
        let inodes = [try test.lookUp("file").inode, try test.makeDirectory("dir"), test.top]
        for inode in inodes {
            for (name, value) in Self.values {
                try test.setAttribute(inode, name, value)
                #expect(try test.volume.getAttribute(inode, name) == value)
            }
            #expect(Set(try test.volume.listAttributes(inode)) == Set(Self.values.map(\.0)))
        }
        try test.remount()
        for inode in [try test.lookUp("file").inode, try test.lookUp("dir").inode, test.top] {
            for (name, value) in Self.values { #expect(try test.volume.getAttribute(inode, name) == value) }
            try test.setAttribute(inode, "user.b", [9, 9])
            #expect(try test.volume.getAttribute(inode, "user.b") == [9, 9])
            try test.volume.removeAttribute(inode, "user.b")
            #expect(throws: Errno.noData) { try test.volume.getAttribute(inode, "user.b") }
            #expect(throws: Errno.noData) { try test.volume.removeAttribute(inode, "user.b") }
        }
        #expect(test.check().findings == [])
    }

    /// A power cut: the attribute was in the journal, and the header that has its key not on the disk yet.
    @Test(arguments: [0, 4096]) func ofAFileWhoseHeaderIsLost(zeros: Int) throws {
        let test = try TestVolume()
        let before = Set(try test.lowerNames())
        let file = try test.create("file")
        try test.setAttribute(file.inode, "user.a", [1])
        let stored = try #require(Set(try test.lowerNames()).subtracting(before).first)
        try test.crash()
        let descriptor = linux_open(test.lower + "/" + stored, O_WRONLY | O_TRUNC, 0)
        #expect(descriptor >= 0)
        #expect(Glibc.write(descriptor, [UInt8](repeating: 0, count: zeros), zeros) == zeros)
        Glibc.close(descriptor)
        let inode = try test.lookUp("file").inode
        #expect(try test.volume.listAttributes(inode) == [])
        #expect(throws: Errno.noData) { try test.volume.getAttribute(inode, "user.a") }
        try test.setAttribute(inode, "user.a", [2])
        #expect(try test.volume.getAttribute(inode, "user.a") == [2])
        try test.remount()
        #expect(try test.volume.listAttributes(try test.lookUp("file").inode) == ["user.a"])
        #expect(test.check().findings == [])
    }

    /// cp -a sets the times, and then attributes; others flush.
    @Test(arguments: [false, true]) func timesOfAnEmptyFile(flushes: Bool) throws {
        let test = try TestVolume()
        let file = try test.create("file")
        var changes = AttributeChanges()
        changes.modificationTime = timespec(tv_sec: 1_000_000_000, tv_nsec: 7)
        _ = try test.volume.setAttributes(file.inode, changes)
        if flushes { try file.sync() } else { try test.setAttribute(file.inode, "user.a", [1]) }
        #expect(try test.volume.attributes(file.inode).st_mtim.tv_sec == 1_000_000_000)
        file.close()
        try test.remount()
        let time = try test.lookUp("file").attributes.st_mtim
        #expect(time.tv_sec == 1_000_000_000 && time.tv_nsec == 7)
    }

    @Test func onLinks() throws {
        let test = try TestVolume()
        let link = try test.makeLink("link", to: [0x61])
        try test.setAttribute(link, "trusted.x", [1, 2])
        #expect(try test.volume.getAttribute(link, "trusted.x") == [1, 2])
        #expect(try test.volume.listAttributes(link) == ["trusted.x"])
    }

    @Test func flagsAndLimits() throws {
        let test = try TestVolume()
        try test.write("file", [])
        let inode = try test.lookUp("file").inode
        #expect(throws: Errno.noData) { try test.setAttribute(inode, "user.a", [1], flags: XATTR_REPLACE) }
        try test.setAttribute(inode, "user.a", [1], flags: XATTR_CREATE)
        #expect(throws: Errno.exists) { try test.setAttribute(inode, "user.a", [2], flags: XATTR_CREATE) }
        try test.setAttribute(inode, "user.a", [3], flags: XATTR_REPLACE)
        #expect(try test.volume.getAttribute(inode, "user.a") == [3])
        #expect(throws: Errno.notSupported) { try test.setAttribute(inode, "other.a", [1]) }
        #expect(throws: Errno.notSupported) { try test.setAttribute(inode, "user.", [1]) }
        #expect(throws: Errno.range) {
            try test.setAttribute(inode, "user." + String(repeating: "n", count: 251), [1])
        }
    }

    /// A sealed value that is moved to another object, or under another name, is damage.
    @Test func movedValues() throws {
        let test = try TestVolume()
        try test.write("a", [])
        let before = Set(try test.lowerNames())
        try test.write("b", [])
        let paths = [
            test.lower + "/" + (try #require(before.first { !$0.contains(".") })),
            test.lower + "/" + (try #require(Set(try test.lowerNames()).subtracting(before).first)),
        ]
        let (first, second) = (try test.lookUp("a").inode, try test.lookUp("b").inode)
        try test.setAttribute(first, "user.x", [1])
        try test.setAttribute(second, "user.x", [2])
        let names = try paths.map { path in
            let names = try Lower.listAttributes(path: path).map { String(decoding: $0, as: UTF8.self) }
            return try #require(names.first { $0 != PlaceList.attribute })
        }
        #expect(names[0] != names[1])
        let blob = try Lower.getAttribute(path: paths[1], names[1])
        try blob.withUnsafeBytes { try Lower.setAttribute(path: paths[0], names[0], $0, flags: 0) }
        #expect(throws: Errno.io) { try test.volume.getAttribute(first, "user.x") }
        #expect(test.takeDamages().map(\.object) == [.attribute])
    }
}
