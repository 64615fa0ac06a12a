import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// What somebody does to names on the lower storage of a volume with places, and what a crash leaves of them.
@Suite struct PlacesTamperTests {
    private struct Sample {
        let test: TestVolume
        let (first, second, directory, other): (String, String, String, String)

        init() throws {
            let test = try PlacesTests.volume()
            self.test = test
            first = try test.lowerPath { try test.write("first", [1]) }
            second = try test.lowerPath { try test.write("second", [2]) }
            directory = try test.lowerPath { _ = try test.makeDirectory("directory") }
            other = try test.lowerPath { _ = try test.makeDirectory("other") }
            try test.write("file", [3], in: try test.lookUp("directory").inode)
            try test.write("file", [4], in: try test.lookUp("other").inode)
            try test.remount()
        }

        func exchange(_ one: String, _ two: String) throws {
            let here = try Lower.open(path: test.lower, flags: O_RDONLY | O_DIRECTORY)
            try Lower.rename(
                here, String(one.dropFirst()), here, String(two.dropFirst()), flags: UInt32(LINUX_RENAME_EXCHANGE))
        }

        /// Exactly these paths are damaged, and the daemon's log says why.
        func expectDamaged(_ paths: [String], _ location: SourceLocation = #_sourceLocation) {
            let findings = test.check().findings
            #expect(findings.map(\.path) == paths, sourceLocation: location)
            #expect(findings.allSatisfy { $0.object == "name" }, sourceLocation: location)
        }
    }

    @Test func contentsExchanged() throws {
        let sample = try Sample()
        let test = sample.test
        try sample.exchange(sample.first, sample.second)
        #expect(throws: Errno.io) { try test.read("first") }
        #expect(throws: Errno.io) { try test.read("second") }
        #expect(test.takeDamages().map(\.object) == [.name, .name])
        #expect(throws: Errno.io) { try test.rename("first", to: "third") }
        #expect(throws: Errno.io) { try test.link(try test.lookUp("first").inode, as: "third") }
        sample.expectDamaged(["/first", "/second"])
        // The rest goes on, and what is back is accepted.
        #expect(try test.read("file", in: try test.lookUp("directory").inode) == [3])
        try sample.exchange(sample.first, sample.second)
        #expect(try test.read("first") == [1])
        sample.expectDamaged([])
        // What is damaged can be removed.
        try sample.exchange(sample.first, sample.second)
        try test.unlink("first")
    }

    @Test func directoriesExchanged() throws {
        let sample = try Sample()
        let test = sample.test
        try sample.exchange(sample.directory, sample.other)
        #expect(throws: Errno.io) { try test.list(try test.lookUp("directory").inode) }
        #expect(throws: Errno.io) { try test.lookUp("file", in: try test.lookUp("other").inode) }
        #expect(throws: Errno.io) { try test.write("new", [1], in: try test.lookUp("other").inode) }
        sample.expectDamaged(["/directory", "/other"])
        #expect(try test.read("first") == [1])
    }

    /// While the volume is mounted, and everything was looked at.
    @Test func exchangedUnderTheMount() throws {
        let sample = try Sample()
        let test = sample.test
        let inode = try test.lookUp("directory").inode
        let file = try test.open("first")
        #expect(try test.list(inode).count == 1)
        try sample.exchange(sample.directory, sample.other)
        try sample.exchange(sample.first, sample.second)
        #expect(throws: Errno.io) { try test.list(try test.lookUp("other").inode) }
        #expect(throws: Errno.io) { try test.read("second") }
        // Who has it open reads on.
        #expect(try file.readAll() == [1])
        file.close()
    }

    @Test func movedToAnotherDirectory() throws {
        let sample = try Sample()
        let test = sample.test
        let one = try #require(try test.lowerNames(sample.directory).first { !$0.contains(".") })
        let two = try #require(try test.lowerNames(sample.other).first { !$0.contains(".") })
        #expect(rename(test.lower + sample.directory + "/" + one, test.lower + sample.other + "/" + two) == 0)
        #expect(throws: Errno.io) { try test.read("file", in: try test.lookUp("other").inode) }
        sample.expectDamaged(["/other/file"])
    }

    @Test func strippedOrAnothers() throws {
        let sample = try Sample()
        let test = sample.test
        let (list, others) = (try #require(try test.places(sample.first)), try test.places(sample.second))
        let changed = PlaceList(object: try #require(others).object, places: list.places)
        for wrong in [nil, others, changed] {
            try test.setPlaces(sample.first, wrong)
            try test.remount()
            #expect(throws: Errno.io) { try test.read("first") }
            #expect(throws: Errno.io) { try test.rename("first", to: "third") }
            sample.expectDamaged(["/first"])
        }
        try test.setPlaces(sample.first, list)
        #expect(try test.read("first") == [1])
        try test.setPlaces(sample.directory, nil)
        try test.remount()
        #expect(throws: Errno.io) { try test.list(try test.lookUp("directory").inode) }
        sample.expectDamaged(["/directory"])
    }

    /// Another's attribute comes with the other's contents: then it is the other, under a name that is not its own.
    @Test func contentsWithTheirAttribute() throws {
        let sample = try Sample()
        let test = sample.test
        try runProgram("/bin/cp", ["-a", test.lower + sample.second, test.lower + sample.first])
        #expect(throws: Errno.io) { try test.read("first") }
        #expect(try test.read("second") == [2])
    }

    /// One of a file's two names leads to another file; the other name stays.
    @Test func oneOfTwoNames() throws {
        let sample = try Sample()
        let test = sample.test
        let third = try test.lowerPath { _ = try test.link(try test.lookUp("first").inode, as: "third") }
        try test.remount()
        #expect(unlink(test.lower + third) == 0)
        #expect(link(test.lower + sample.second, test.lower + third) == 0)
        sample.expectDamaged(["/third"])
        #expect(throws: Errno.io) { try test.read("third") }
        #expect(try test.read("first") == [1])
        #expect(try test.read("second") == [2])
    }

    /// A UUID that somebody put into the attribute is not signed for another name.
    @Test func noSignatureForAnothersUUID() throws {
        let sample = try Sample()
        let test = sample.test
        let list = try #require(try test.places(sample.first))
        let second = try #require(try test.places(sample.second))
        try test.setPlaces(sample.first, PlaceList(object: second.object, places: list.places + second.places))
        #expect(throws: Errno.io) { try test.rename("first", to: "third") }
        #expect(throws: Errno.io) { try test.link(try test.lookUp("first").inode, as: "third") }
        #expect(try test.places(sample.first)?.places.count == 2)
    }

    // MARK: Crashes

    /// The last store of a rename is lost: old and new name are both the file's, until a repair.
    @Test func crashInARename() throws {
        let sample = try Sample()
        let test = sample.test
        FaultInjection.arm(nth: 2, of: [.setxattr], fault: .errno(.io))
        try test.rename("first", to: "third")
        #expect(FaultInjection.disarm() == 2)
        FaultInjection.arm(nth: 2, of: [.setxattr], fault: .errno(.io))
        try test.rename("directory", to: "moved")
        FaultInjection.disarm()
        try test.crash()
        #expect(try test.read("third") == [1])
        #expect(try test.list(try test.lookUp("moved").inode).count == 1)
        try test.close()
        for repairs in [true, false] {
            var options = VolumeCheck.Options()
            options.repair = repairs
            try test.open()
            let report = try VolumeCheck(test.volume, options: options).run()
            #expect(report.findings.isEmpty)
            let places = report.leftovers.filter { $0.kind == .place }
            #expect(places.map(\.path) == (repairs ? ["/moved", "/third"] : []))
            #expect(places.allSatisfy { $0.repaired })
            try test.close()
        }
        try test.open()
        try PlacesTests().expectExact(test)
    }

    /// It fails before the rename: the file keeps its name and no other.
    @Test func renameThatFails() throws {
        let sample = try Sample()
        let test = sample.test
        FaultInjection.arm(nth: 1, of: [.setxattr], fault: .errno(.noSpace))
        #expect(throws: Errno.noSpace) { try test.rename("first", to: "third") }
        FaultInjection.arm(nth: 1, of: [.renameat2], fault: .errno(.io))
        #expect(throws: Errno.io) { try test.rename("first", to: "third") }
        FaultInjection.arm(nth: 1, of: [.linkat], fault: .errno(.noSpace))
        #expect(throws: Errno.noSpace) { try test.link(try test.lookUp("first").inode, as: "third") }
        FaultInjection.disarm()
        #expect(throws: Errno.exists) { try test.link(try test.lookUp("first").inode, as: "second") }
        try PlacesTests().expectExact(test)
    }

    /// Names that outlived their file's header, and one that lost even its list of places.
    @Test func filesWithoutAHeader() throws {
        let test = try PlacesTests.volume()
        let linked = try test.create("a")
        _ = try test.link(linked.inode, as: "b")
        let path = try test.lowerPath { _ = try test.create("c") }
        try test.setPlaces(path, nil)
        try test.crash()
        #expect(try test.read("b").isEmpty)
        #expect(try test.read("a").isEmpty)
        try test.rename("c", to: "d")
        #expect(try test.read("d").isEmpty)
        let file = try test.open("a")
        try file.write([1])
        file.close()
        try PlacesTests().expectExact(test)
        #expect(try test.read("b") == [1])
    }

    /// Stripped of all attributes by a backup program: the operator accepts what is there.
    @Test func acceptedRestore() throws {
        let sample = try Sample()
        let test = sample.test
        _ = try test.link(try test.lookUp("first").inode, as: "third", in: try test.lookUp("other").inode)
        try test.close()
        for (path, _) in try test.lowerObjects() where try test.places(path) != nil { try test.setPlaces(path, nil) }
        test.drop()
        var options = Volume.Options()
        options.acceptsPlaces = true
        do {
            let mount = try VolumeMount(lower: test.lower, options: options, unlocking: test.unlocking) { _ in }
            let report = try VolumeCheck(mount.volume).run()
            #expect(report.findings.isEmpty)
            #expect(mount.volume.acceptedPlaces.load(ordering: .relaxed) == 7)
            try mount.close()
        }
        try test.open()
        try PlacesTests().expectExact(test)
        #expect(try test.read("first") == [1])
    }

    /// Renames and opens beside each other: none gives a false alarm.
    @Test func opensBesideRenames() async throws {
        let sample = try Sample()
        let test = sample.test
        let (volume, inode) = (test.volume, try test.lookUp("first").inode)
        let directory = try test.lookUp("directory").inode
        let renames = Task.detached {
            let names: [[UInt8]] = [Array("first".utf8), Array("third".utf8)]
            for step in 0..<3000 {
                try names[step % 2].withUnsafeBytes { from in
                    try names[(step + 1) % 2].withUnsafeBytes { to in
                        try volume.rename(volume.rootInode, from, volume.rootInode, to, flags: 0)
                    }
                }
            }
        }
        let opens = (0..<2).map { _ in
            Task.detached {
                var opened = 0
                for _ in 0..<3000 {
                    do throws(Errno) {
                        volume.closeContent(try volume.openContent(inode, forWriting: false))
                        opened += 1
                    } catch { if error != .stale { throw error } }
                }
                return opened
            }
        }
        let moves = Task.detached {
            let names: [[UInt8]] = [Array("directory".utf8), Array("moved".utf8)]
            for step in 0..<1000 {
                try names[step % 2].withUnsafeBytes { from in
                    try names[(step + 1) % 2].withUnsafeBytes { to in
                        try volume.rename(volume.rootInode, from, volume.rootInode, to, flags: 0)
                    }
                }
                _ = try volume.openDirectory(directory)
            }
        }
        try await renames.value
        try await moves.value
        for task in opens { #expect(try await task.value > 0) }
        #expect(test.takeDamages().isEmpty)
    }
}
