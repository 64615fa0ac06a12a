import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

@Suite struct NameTests {
    /// A name of `count` random bytes, none of them NUL or slash.
    private func name(_ count: Int, _ generator: inout SeededGenerator) -> Name {
        Name(generator.bytes(count).map { $0 == 0 || $0 == 0x2F ? 0x61 : $0 })
    }

    @Test func everyLength() throws {
        let test = try TestVolume()
        var generator = SeededGenerator(seed: 1)
        var names: Set<Name> = []
        for count in 1...255 {
            for name in [name(count, &generator), Name([UInt8](repeating: 0x78, count: count))] {
                try test.write(name, name.bytes)
                names.insert(name)
            }
        }
        #expect(try test.list() == names)
        for lower in try test.lowerNames() { #expect(lower.utf8.count <= 255) }
        try test.remount()
        #expect(try test.list() == names)
        for name in names { #expect(try test.read(name) == name.bytes) }
        #expect(test.check().findings == [])
        for name in names { try test.unlink(name) }
        #expect(try test.list() == [])
        // Nothing but the header and the volume's own directory stays behind.
        #expect(Set(try test.lowerNames()) == [".lethefs", "lethefs.dir"])
    }

    @Test func limits() throws {
        let test = try TestVolume()
        #expect(throws: Errno.nameTooLong) { _ = try test.create(Name([UInt8](repeating: 0x61, count: 256))) }
        #expect(throws: Errno.nameTooLong) { try test.lookUp(Name([UInt8](repeating: 0x61, count: 4096))) }
        #expect(throws: Errno.noEntry) { try test.lookUp("") }
        #expect(throws: Errno.noEntry) { try test.lookUp("none") }
        #expect(throws: Errno.noEntry) { try test.unlink("none") }
        #expect(throws: Errno.noEntry) { try test.removeDirectory("none") }
    }

    /// Names that mean something on the lower storage mean nothing here.
    @Test(arguments: [
        ".lethefs", "lethefs.dir", "lethefs.long.x", "lethefs.name.x", "lethefs.temp.x", "lost+found", ".x", "...",
    ])
    func reservedNamesAreOrdinary(text: String) throws {
        let test = try TestVolume()
        let name = Name(Array(text.utf8))
        #expect(throws: Errno.noEntry) { try test.lookUp(name) }
        try test.write(name, [1])
        #expect(try test.list() == [name])
        #expect(try test.read(name) == [1])
        try test.unlink(name)
        #expect(try test.list() == [])
    }

    /// The same name is stored differently in each directory, and is no name when moved.
    @Test func namesBelongToTheirDirectory() throws {
        let test = try TestVolume()
        let (first, second) = (try test.makeDirectory("a"), try test.makeDirectory("b"))
        try test.write("same", [1], in: first)
        try test.write("same", [2], in: second)
        var stored: [[String]] = []
        for lower in try test.lowerNames() where !lower.contains(".") {
            stored.append(try test.lowerNames(lower).filter { $0 != "lethefs.dir" }.map { lower + "/" + $0 })
        }
        #expect(stored.count == 2 && stored.allSatisfy { $0.count == 1 })
        let leaf = stored[0][0].split(separator: "/")[1]
        #expect(leaf != stored[1][0].split(separator: "/")[1])
        let other = stored[1][0].split(separator: "/")[0]
        try #require(rename(test.lower + "/" + stored[0][0], test.lower + "/\(other)/\(leaf)") == 0)
        for directory in [first, second] {
            let names = try test.list(directory)
            #expect(names.isEmpty || names == ["same"])
        }
        #expect(test.check().findings.map(\.object) == ["name"])
    }

    /// `lethefs.temp.*` of a crash does not show, does not keep a directory from going, and goes with it.
    @Test func leftoversAreHiddenAndCleaned() throws {
        let test = try TestVolume()
        let directory = try test.makeDirectory("dir")
        let lower = try #require(try test.lowerNames().first { !$0.contains(".") })
        let left = test.lower + "/" + lower + "/lethefs.temp.left"
        try #require(mkdir(left, 0o700) == 0 && symlink("x", left + "/lethefs.dir") == 0)
        try #require(symlink("y", test.lower + "/" + lower + "/lethefs.name.left") == 0)
        #expect(try test.list(directory) == [])
        try test.removeDirectory("dir")
        #expect(try test.list() == [])
        #expect(Set(try test.lowerNames()) == [".lethefs", "lethefs.dir"])
    }

    @Test func aLostSidecarIsDamage() throws {
        let test = try TestVolume()
        try test.write(Name([UInt8](repeating: 0x61, count: 200)), [1])
        let sidecar = try #require(try test.lowerNames().first { $0.hasPrefix(ReservedName.longName) })
        try #require(unlink(test.lower + "/" + sidecar) == 0)
        try test.remount()
        #expect(try test.list() == [])
        #expect(test.takeDamages().map(\.object) == [.name])
    }
}
