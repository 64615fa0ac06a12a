import CLinux
import Foundation
import KeyManagement
import Storage
import Synchronization
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// What comes between while a tree goes to another zone: programs at the worst moment, and a power cut between two steps.
@Suite struct AssignRaceTests {
    private func bytes(_ count: Int, _ seed: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ seed) }
    }

    private func addZone(_ test: TestVolume) throws -> ZoneID {
        let made = try test.mount.makeKeyring(policy: .anyOf, cmks: [test.cmk])
        try test.mount.addZone(made.keyring, made.keys)
        return made.keyring.zone
    }

    private func finish(_ test: TestVolume, _ zone: ZoneID) throws {
        let work = try #require(test.mount.keyring(zone)?.pending.first { $0.kind == .assign })
        let next = try #require(try test.mount.assign(zone, work, control: SweepControl()))
        _ = try test.mount.reencrypt(zone, next, editing: RewrapTests.editing(test), control: SweepControl())
        #expect(test.mount.keyring(zone)?.pending.isEmpty == true)
    }

    /// Directories of the lower tree by inode number.
    private func lowerDirectories(_ lower: String) throws -> [UInt64: String] {
        var found: [UInt64: String] = [:]
        for path in try FileManager.default.subpathsOfDirectory(atPath: lower) {
            var info = stat()
            guard lstat(lower + "/" + path, &info) == 0, info.st_mode & 0o170000 == 0o040000 else { continue }
            found[UInt64(info.st_ino)] = lower + "/" + path
        }
        return found
    }

    private static func headerText(_ directory: String) -> String? {
        try? FileManager.default.destinationOfSymbolicLink(atPath: directory + "/lethefs.dir")
    }

    /// A power cut leaves the header of a directory as it was before, and what lies in it as it is after: all is readable, and the
    /// conversion goes on to its end.
    @Test(arguments: [["tree"], ["tree/inner"], ["tree", "tree/inner"]])
    func aDirectoryFallsBack(paths: [String]) throws {
        let test = try TestVolume()
        let top = try test.makeDirectory("tree")
        let inner = try test.makeDirectory("inner", in: top)
        for (index, place) in [top, inner].enumerated() {
            try test.write("file", bytes(9000, index), in: place)
            test.volume.forget(try test.makeLink("link", to: bytes(50, 1).map { $0 | 1 }, in: place), count: 1)
        }
        let zone = try addZone(test)
        let directories = try lowerDirectories(test.lower)
        let before = try paths.map { path in
            let inode = try test.volume.resolve(path)
            defer { test.volume.forget(inode, count: 1) }
            let lower = try #require(directories[inode.number])
            return (path: lower, text: try #require(Self.headerText(lower)))
        }
        let work = try test.mount.beginAssignment(top, to: zone)
        // All is converted; then the note is put back, and some directories are.
        let keyring = test.lower + "/.lethefs"
        try copyTree(keyring, to: test.temporary["noted"])
        _ = try #require(try test.mount.assign(zone, work, directory: top, control: SweepControl()))
        for (index, place) in [top, inner].enumerated() { try test.write("new", bytes(5000, index + 7), in: place) }
        for inode in [inner, top] { test.volume.forget(inode, count: 1) }
        let copy = test.temporary["copy"]
        try copyTree(test.lower, to: copy)
        test.drop()
        try runProgram("/bin/rm", ["-rf", copy + "/.lethefs/zones"])
        try copyTree(test.temporary["noted"] + "/zones", to: copy + "/.lethefs/zones")
        for (path, text) in before {
            let header = copy + path.dropFirst(test.lower.count) + "/lethefs.dir"
            #expect(try FileManager.default.destinationOfSymbolicLink(atPath: header) != text)
            try FileManager.default.removeItem(atPath: header)
            try FileManager.default.createSymbolicLink(atPath: header, withDestinationPath: text)
        }
        let one = try TestVolume(lower: copy, in: test.temporary, cmk: test.cmk)
        #expect(one.mount.keyring(zone)?.pending == [work])
        func verify() throws {
            let top = try one.lookUp("tree").inode
            let inner = try one.lookUp("inner", in: top).inode
            for (index, place) in [top, inner].enumerated() {
                #expect(try one.read("file", in: place) == bytes(9000, index))
                #expect(try one.read("new", in: place) == bytes(5000, index + 7))
                let link = try one.lookUp("link", in: place).inode
                #expect(try one.volume.readLink(link) == bytes(50, 1).map { $0 | 1 })
                one.volume.forget(link, count: 1)
            }
            for inode in [inner, top] { one.volume.forget(inode, count: 1) }
            #expect(one.takeDamages().isEmpty)
            #expect(one.check().findings.isEmpty)
        }
        try verify()
        let halfway = try one.mount.coverage(zone)
        #expect(halfway.failed == 0 && halfway.keks.values.reduce(0) { $0 + $1.files } == 4, "\(halfway.failures)")
        try finish(one, zone)
        try verify()
        let there = try one.mount.coverage(zone)
        #expect(there.failed == 0 && there.keks.values.reduce(0) { $0 + $1.files } == 4)
        #expect(there.keks.values.reduce(0) { $0 + $1.directories } == 2)
        #expect(try one.mount.coverage(.root).keks.values.reduce(0) { $0 + $1.files } == 0)
        try one.remount()
        try verify()
    }

    /// Programs have directories' headers read at the moment when those are replaced: none is kept that is the source's.
    @Test(.timeLimit(.minutes(10))) func headersReadMeanwhile() throws {
        let test = try TestVolume()
        let top = try test.makeDirectory("tree")
        let directories = try (0..<40).map { try test.makeDirectory("d\($0)", in: top) }
        let lower = try lowerDirectories(test.lower)
        let paths = try directories.map { try #require(lower[$0.number]) }
        var zones = [try addZone(test), try addZone(test)]
        let (mount, volume) = (test.mount, test.volume)
        for _ in 0..<4 {
            let zone = zones[0]
            zones.swapAt(0, 1)
            let work = try mount.beginAssignment(top, to: zone)
            let texts = paths.map(Self.headerText)
            let isDone = DispatchSemaphore(value: 0)
            let started = Atomic<Int>(0)
            let group = DispatchGroup()
            for first in [0, 20] {
                group.enter()
                Thread.detachNewThread {
                    var left = Array(first..<40) + Array(0..<first)
                    while !left.isEmpty {
                        for index in left {
                            volume.forgetKeys(of: [directories[index]])
                            _ = try? volume.zone(of: directories[index])
                        }
                        // From then on nobody takes away what was kept.
                        left.removeAll { Self.headerText(paths[$0]) != texts[$0] }
                        started.add(1, ordering: .relaxed)
                    }
                    group.leave()
                }
            }
            while started.load(ordering: .relaxed) < 2 { usleep(100) }
            Thread.detachNewThread {
                do { _ = try mount.assign(zone, work, directory: top, control: SweepControl()) } catch {
                    Issue.record(error)
                }
                isDone.signal()
            }
            isDone.wait()
            group.wait()
            for (index, directory) in directories.enumerated() {
                #expect(try volume.zone(of: directory) == zone)
                // What is made there belongs where the directory on the lower storage does.
                let name = Name("f-\(zone.rawValue)-\(index)")
                try test.write(name, [1], in: directory)
                try test.unlink(name, in: directory)
            }
            try mount.cancel(zone, .reencrypt)
        }
    }

    /// Names move about all the while: what is counted is exact nevertheless.
    @Test(.timeLimit(.minutes(10))) func namesAreCountedWhileTheyMove() throws {
        let test = try TestVolume()
        let top = try test.makeDirectory("tree")
        for index in 0..<60 { try test.write("file\(index)", [UInt8(index)], in: top) }
        test.volume.forget(try test.link(try test.lookUp("file7", in: top).inode, as: "outside"), count: 1)
        let zone = try addZone(test)
        let (mount, volume) = (test.mount, test.volume)
        _ = try test.lookUp("file1", in: top)
        let isEnding = Atomic<Bool>(false)
        let ended = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            let names = [Array("file1".utf8), Array("renamed".utf8)]
            var step = 0
            while !isEnding.load(ordering: .relaxed) {
                do {
                    try names[step % 2].withUnsafeBytes { old in
                        try names[(step + 1) % 2].withUnsafeBytes { new in
                            try volume.rename(top, old, top, new, flags: 0)
                        }
                    }
                } catch { Issue.record(error) }
                step += 1
            }
            ended.signal()
        }
        for _ in 0..<20 {
            let refusal = RewrapTests.error { () throws(VolumeError) in _ = try mount.beginAssignment(top, to: zone) }
            #expect(refusal == .unassignable(.namesOutside(count: 1, paths: ["/tree/file7"])))
        }
        isEnding.store(true, ordering: .relaxed)
        ended.wait()
        #expect(mount.keyring(zone)?.pending.isEmpty == true)
        try test.unlink("outside")
        _ = try mount.beginAssignment(top, to: zone)
        try finish(test, zone)
    }

    private func close(_ test: TestVolume, _ id: ZoneID) throws {
        let zone = try test.volume.zone(id)
        #expect(zone.drain(.keyRevoked))
        zone.close(.keyRevoked)
        let inodes = test.volume.retainInodes(of: id)
        test.volume.forgetKeys(of: inodes)
        test.volume.release(inodes)
    }

    /// A third zone that is closed, in the tree and outside of it, and a damaged directory outside: none of them keeps a tree from
    /// arriving.
    @Test(arguments: [false, true]) func othersAreNotInTheWay(begun: Bool) throws {
        let test = try TestVolume()
        let (zone, third) = (try addZone(test), try addZone(test))
        let volume = test.volume
        // Several on either side of the tree, so that whatever the order is, the walk meets some before it.
        for index in 0..<6 { test.volume.forget(try test.makeDirectory("broken\(index)"), count: 1) }
        let top = try test.makeDirectory("tree")
        for (place, name) in [(top, "inside"), (test.top, "outside")] {
            let other = try Array(name.utf8).withUnsafeBytes { (name) throws(Errno) in
                try volume.makeDirectory(place, name, mode: 0o755, TestVolume.root, zone: third)
            }.inode
            try test.write("file", bytes(5000, 3), in: other)
            volume.forget(other, count: 1)
        }
        for index in 0..<5 { try test.write("file\(index)", bytes(5000, index), in: top) }
        let work = try test.mount.beginAssignment(top, to: zone)
        if begun {
            let control = SweepControl()
            _ = try test.mount.assign(zone, work, directory: top, control: control)
            let next = try #require(test.mount.keyring(zone)?.pending.first)
            _ = try test.mount.reencrypt(zone, next, editing: RewrapTests.editing(test), control: SweepControl())
            _ = try test.mount.beginAssignment(top, to: .root)
        }
        let directories = try lowerDirectories(test.lower)
        for index in 0..<6 {
            let broken = try test.volume.resolve("broken\(index)")
            try FileManager.default.removeItem(atPath: try #require(directories[broken.number]) + "/lethefs.dir")
            test.volume.forget(broken, count: 1)
        }
        test.volume.forget(top, count: 1)
        try test.crash()
        try close(test, third)
        let destination = begun ? .root : zone
        let noted = try #require(test.mount.keyring(destination)?.pending.first { $0.kind == .assign })
        let control = SweepControl()
        let next = try #require(try test.mount.assign(destination, noted, control: control))
        #expect(next.kind == .reencrypt && control.progress.failed == 0 && control.progress.files == 5)
        let tree = try test.lookUp("tree").inode
        #expect(try test.volume.zone(of: tree) == destination)
        for index in 0..<5 { #expect(try test.read(Name("file\(index)"), in: tree) == bytes(5000, index)) }
        try test.volume.zone(third).open(try test.mount.unlock(third))
        let inside = try test.lookUp("inside", in: tree).inode
        #expect(try test.volume.zone(of: inside) == third)
        #expect(try test.read("file", in: inside) == bytes(5000, 3))
    }

    /// A tree below a directory of a third zone that is closed is not there to be found: it stays noted, and waits.
    @Test func aTreeThatCannotBeSeenWaits() throws {
        let test = try TestVolume()
        let (zone, third) = (try addZone(test), try addZone(test))
        let volume = test.volume
        let outer = try Array("outer".utf8).withUnsafeBytes { (name) throws(Errno) in
            try volume.makeDirectory(test.top, name, mode: 0o755, TestVolume.root, zone: third)
        }.inode
        let source = try addZone(test)
        let top = try Array("tree".utf8).withUnsafeBytes { (name) throws(Errno) in
            try volume.makeDirectory(outer, name, mode: 0o755, TestVolume.root, zone: source)
        }.inode
        try test.write("file", bytes(5000, 1), in: top)
        let work = try test.mount.beginAssignment(top, to: zone)
        for inode in [top, outer] { volume.forget(inode, count: 1) }
        try test.crash()
        try close(test, third)
        #expect(throws: VolumeError.self) { _ = try test.mount.assign(zone, work, control: SweepControl()) }
        #expect(test.mount.keyring(zone)?.pending == [work])
        try test.volume.zone(third).open(try test.mount.unlock(third))
        try finish(test, zone)
        let there = try test.mount.coverage(zone)
        #expect(there.keks.values.reduce(0) { $0 + $1.files } == 1)
    }

    /// Directories change places within a scope while it is re-encrypted: what is in them gets new DEKs all the same.
    @Test(.timeLimit(.minutes(10))) func movedWithinTheScope() throws {
        let test = try TestVolume()
        let scope = try test.makeDirectory("scope")
        let halves = try ["p", "q"].map { (name: Name) in try test.makeDirectory(name, in: scope) }
        for (index, half) in halves.enumerated() {
            try test.write("file", bytes(9000, index), in: half)
            let moving = try test.makeDirectory(Name("m\(index)"), in: half)
            try test.write("file", bytes(9000, index + 2), in: moving)
        }
        let editing = RewrapTests.editing(test)
        let mount = test.mount
        let work = try mount.beginReencryption(
            .root, scope: try test.volume.identity(of: "scope"), rate: 0, flags: [.paused], editing: editing)
        let control = SweepControl()
        let done = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            do { _ = try mount.reencrypt(.root, work, editing: editing, control: control, threads: 1) } catch {
                Issue.record(error)
            }
            done.signal()
        }
        // It waits before the first file, in one of the halves; into that one, what was in the other goes.
        while control.progress.directories < 3 { usleep(1000) }
        usleep(100_000)
        try test.rename("m0", in: halves[0], to: "m0", inside: halves[1])
        try test.rename("m1", in: halves[1], to: "m1", inside: halves[0])
        control.setPaused(false)
        done.wait()
        #expect(mount.keyring(.root)?.pending.isEmpty == true)
        let coverage = try mount.coverage(.root)
        #expect(coverage.failed == 0 && coverage.deks[.first]?.files ?? 0 == 0, "\(coverage.deks)")
        #expect(coverage.deks.values.reduce(0) { $0 + $1.files } == 4)
    }

    /// Neither is begun while the other is noted, in whichever of the two zones.
    @Test func notWhileShredding() throws {
        let test = try TestVolume()
        let top = try test.makeDirectory("tree")
        let zone = try addZone(test)
        let mount = test.mount
        for shredded in [zone, .root] {
            try mount.beginShredding(shredded)
            let refusal = RewrapTests.error { () throws(VolumeError) in _ = try mount.beginAssignment(top, to: zone) }
            #expect(refusal == .unassignable(.shredding))
            try mount.cancel(shredded, .shred)
        }
        _ = try mount.beginAssignment(top, to: zone)
        for shredded in [zone, .root] {
            let refusal = RewrapTests.error { () throws(VolumeError) in try mount.beginShredding(shredded) }
            #expect(refusal == .unassignable(.underWay))
        }
        try finish(test, zone)
    }
}
