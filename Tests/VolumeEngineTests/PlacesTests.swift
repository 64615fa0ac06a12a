import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// Volumes with places: each file and directory is accepted under its own names alone (FORMAT §13).
@Suite struct PlacesTests {
    static func volume(inMemory: Bool = true) throws -> TestVolume {
        try TestVolume(inMemory: inMemory, features: [.places])
    }

    // MARK: What is done through the mount

    @Test func everyOperationKeepsPlacesRight() throws {
        let test = try Self.volume()
        let long = Name(Array(repeating: UInt8(ascii: "l"), count: 220))
        try test.write("a", [1])
        try test.write("b", [2])
        try test.write(long, [3])
        let directory = try test.makeDirectory("d")
        let other = try test.makeDirectory("e")
        try test.write("inside", [4], in: directory)
        _ = try test.link(try test.lookUp("a").inode, as: "a2")
        _ = try test.link(try test.lookUp("a").inode, as: long, in: directory)
        try test.rename("a2", to: "a3", inside: other)
        try test.rename("b", to: long)
        try test.rename("d", to: "e", flags: Int32(LINUX_RENAME_EXCHANGE))
        try test.rename("a", to: long, flags: Int32(LINUX_RENAME_EXCHANGE))
        _ = try test.makeDirectory("empty")
        _ = try test.makeDirectory("full")
        try test.rename("full", to: "empty")
        try test.rename("e", to: "moved", inside: try test.lookUp("empty").inode)
        try test.unlink("a")
        try expectExact(test)
        let moved = try test.lookUp("moved", in: try test.lookUp("empty").inode).inode
        #expect(try test.read(long) == [1])
        #expect(try test.read("inside", in: moved) == [4])
        #expect(try test.read(long, in: moved) == [1])
        #expect(try test.read("a3", in: try test.lookUp("d").inode) == [1])
        try test.unlink(long)
        try test.unlink(long, in: moved)
        try expectExact(test)
        #expect(try test.read("a3", in: try test.lookUp("d").inode) == [1])
    }

    /// A file that is open while it is renamed, linked and loses names.
    @Test func openFiles() throws {
        let test = try Self.volume()
        let file = try test.create("a")
        try test.rename("a", to: "b")
        _ = try test.link(file.inode, as: "c")
        try test.unlink("b")
        // It knows no name of its own any more.
        _ = try test.link(file.inode, as: "d")
        try file.write([7])
        file.close()
        try expectExact(test)
        #expect(try test.read("c") == [7])
        #expect(try test.read("d") == [7])
    }

    @Test(arguments: [1, 2, 3])
    func randomRenames(seed: UInt64) throws {
        let test = try Self.volume()
        var random = SeededGenerator(seed: seed)
        let names: [Name] = (0..<6).map { "n\($0)" }
        for step in 0..<300 {
            let (one, two) = (names[random.below(6)], names[random.below(6)])
            switch random.below(6) {
            case 0: try? test.write(one, [1])
            case 1: _ = try? test.makeDirectory(one)
            case 2: try? test.rename(one, to: two)
            case 3: try? test.rename(one, to: two, flags: Int32(LINUX_RENAME_EXCHANGE))
            case 4:
                if let inode = try? test.lookUp(one).inode, inode.kind == .regular {
                    _ = try? test.link(inode, as: two)
                }
            default:
                if (try? test.unlink(one)) == nil { try? test.removeDirectory(one) }
            }
            if step % 60 == 59 { try expectExact(test) }
        }
        #expect(test.takeDamages().isEmpty)
    }

    @Test func programsNeverSeeIt() throws {
        let test = try Self.volume()
        try test.write("a", [1])
        for name in ["a", "d"] as [Name] {
            if name == "d" { _ = try test.makeDirectory("d") }
            let inode = try test.lookUp(name).inode
            #expect(try test.volume.listAttributes(inode).isEmpty)
            #expect(throws: Errno.noData) { try test.volume.getAttribute(inode, PlaceList.attribute) }
            #expect(throws: Errno.noData) { try test.volume.removeAttribute(inode, PlaceList.attribute) }
            // One of that name is as any other.
            try test.setAttribute(inode, PlaceList.attribute, [1, 2])
            #expect(try test.volume.getAttribute(inode, PlaceList.attribute) == [1, 2])
            #expect(try test.volume.listAttributes(inode) == [PlaceList.attribute])
        }
        try expectExact(test)
        #expect(try test.read("a") == [1])
    }

    /// Lower calls that the feature adds, and that no volume without it has (CostTests).
    @Test func cost() throws {
        func calls(_ body: () throws -> Void) rethrows -> Int {
            FaultInjection.arm(nth: Int.max, of: [.getxattr, .setxattr], fault: .short)
            defer { FaultInjection.disarm() }
            try body()
            return FaultInjection.disarm()
        }
        let test = try Self.volume()
        #expect(try calls { try test.write("a", [1]) } == 1)
        #expect(try calls { _ = try test.read("a") } == 1)
        #expect(try calls { try test.rename("a", to: "b") } == 3)
        #expect(try calls { _ = try test.makeDirectory("d") } == 1)
        #expect(try calls { try test.unlink("b") } == 0)
        #expect(try calls { _ = try test.makeLink("l", to: [1]) } == 0)
        #expect(try calls { try test.rename("l", to: "m") } == 0)
    }

    /// ext4 keeps an inode's attributes in one block.
    @Test func asManyNamesAsThereIsRoomFor() throws {
        let test = try Self.volume(inMemory: false)
        try test.write("a", [1])
        let inode = try test.lookUp("a").inode
        var made = 1
        var failure: Errno?
        while failure == nil, made < 5000 {
            do throws(Errno) {
                _ = try test.link(inode, as: "n\(made)")
                made += 1
            } catch { failure = error }
        }
        #expect(failure == .tooManyLinks)
        #expect(made > 200)
        // Nor is there room for the moment of a rename, until one name less is there.
        try test.unlink("n1")
        try test.rename("n2", to: "n1")
        try expectExact(test)
        #expect(try test.read("n\(made - 1)") == [1])
    }

    @Test func noAttributesNoVolume() throws {
        let temporary = try TemporaryDirectory()
        FaultInjection.arm(nth: 1, of: [.setxattr], fault: .errno(.notSupported))
        defer { FaultInjection.disarm() }
        #expect(throws: VolumeError.noUserAttributes) {
            try VolumeCreation.prepare(temporary["lower"], features: [.places])
        }
        FaultInjection.disarm()
        try VolumeCreation.prepare(temporary["lower"], features: [.places])
        #expect(try Lower.listAttributes(path: temporary["lower"]).isEmpty)
    }
}

extension PlacesTests {
    /// After a remount nothing is damaged or left over, and every object has as many places as names.
    func expectExact(_ test: TestVolume, _ location: SourceLocation = #_sourceLocation) throws {
        try test.remount()
        let report = test.check()
        #expect(report.findings == [], sourceLocation: location)
        #expect(report.leftovers == [], sourceLocation: location)
        for (path, info) in try test.lowerObjects() {
            let list = try #require(try test.places(path), sourceLocation: location)
            let names = info.st_mode & mode_t(S_IFMT) == mode_t(S_IFDIR) ? 1 : Int(info.st_nlink)
            #expect(list.places.count == names, "\(path)", sourceLocation: location)
        }
    }
}

extension TestVolume {
    /// Lower paths of all directories but the root, and of all regular files.
    func lowerObjects(_ directory: String = "") throws -> [(path: String, info: stat)] {
        var found: [(String, stat)] = []
        for name in try lowerNames(directory) where name != ".lethefs" {
            let path = directory + "/" + name
            var info = stat()
            guard lstat(lower + path, &info) == 0 else { throw Errno.current }
            switch info.st_mode & mode_t(S_IFMT) {
            case mode_t(S_IFDIR):
                found.append((path, info))
                found += try lowerObjects(path)
            case mode_t(S_IFREG): found.append((path, info))
            default: break
            }
        }
        return found
    }

    func places(_ lowerPath: String) throws -> PlaceList? {
        do throws(Errno) {
            let bytes = try Lower.getAttribute(path: lower + lowerPath, PlaceList.attribute)
            return try? bytes.withUnsafeBytes { try PlaceList(parsing: $0) }
        } catch {
            guard error == .noData else { throw error }
            return nil
        }
    }

    func setPlaces(_ lowerPath: String, _ list: PlaceList?) throws {
        let path = lower + lowerPath
        guard let list else { return try Lower.removeAttribute(path: path, PlaceList.attribute) }
        try list.encoded.withUnsafeBytes { try Lower.setAttribute(path: path, PlaceList.attribute, $0, flags: 0) }
    }

    /// The lower path of what `body` makes in a lower directory.
    func lowerPath(in directory: String = "", _ body: () throws -> Void) throws -> String {
        let before = Set(try lowerNames(directory))
        try body()
        let made = Set(try lowerNames(directory)).subtracting(before).filter { !$0.hasPrefix("lethefs.name.") }
        guard let name = made.first else { throw Errno.noEntry }
        return directory + "/" + name
    }
}
