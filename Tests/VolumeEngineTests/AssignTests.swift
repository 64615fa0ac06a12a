import CLinux
import Foundation
import KeyManagement
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// A tree goes from one zone to another: all of it, while programs use it, whatever comes in between.
@Suite struct AssignTests {
    /// What a tree holds: contents by name, in `tree` and in `tree/inner`.
    struct Tree {
        var contents: [Name: [UInt8]] = [:]
        var inner: [Name: [UInt8]] = [:]
        static let link = Array(repeating: Array("segment/".utf8), count: 450).flatMap { $0 }
    }

    func bytes(_ count: Int, _ seed: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ seed) }
    }

    func code(_ body: () throws -> Void) -> Errno? {
        do {
            try body()
            return nil
        } catch { return error as? Errno }
    }

    func refusal(_ body: () throws(VolumeError) -> Void) -> VolumeError? { RewrapTests.error(body) }

    /// Another zone, without a directory.
    func addZone(_ test: TestVolume) throws -> ZoneID {
        let made = try test.mount.makeKeyring(policy: .anyOf, cmks: [test.cmk])
        try test.mount.addZone(made.keyring, made.keys)
        return made.keyring.zone
    }

    func fill(_ test: TestVolume) throws -> Tree {
        var tree = Tree()
        let top = try test.makeDirectory("tree")
        let inner = try test.makeDirectory("inner", in: top)
        for (index, size) in [0, 1, 3552, 3553, 9000, 100_000].enumerated() {
            let name = index == 3 ? Name(Array(String(repeating: "long", count: 60).utf8)) : Name("file\(index)")
            tree.contents[name] = bytes(size, index)
            try test.write(name, bytes(size, index), in: top)
        }
        let sparse = try test.create("sparse", in: inner)
        try sparse.write([1], at: 200_000)
        sparse.close()
        tree.inner["sparse"] = [UInt8](repeating: 0, count: 200_000) + [1]
        let file = try test.lookUp("file4", in: top).inode
        test.volume.forget(try test.link(file, as: "second name", in: inner), count: 1)
        tree.inner["second name"] = tree.contents["file4"]
        try test.setAttribute(file, "user.color", [9, 9])
        try test.setAttribute(inner, "user.kind", [7])
        test.volume.forget(file, count: 1)
        let link = try test.makeLink("link", to: Array("target".utf8), in: top)
        try test.setAttribute(link, "trusted.note", [5, 5])
        test.volume.forget(link, count: 1)
        test.volume.forget(try test.makeLink("long link", to: Tree.link, in: inner), count: 1)
        let volume = test.volume
        let pipe = try test.named("pipe") { (name) throws(Errno) in
            try volume.makeNode(top, name, mode: 0o010644, device: 0, TestVolume.root)
        }.inode
        try test.setAttribute(pipe, "trusted.note", [6, 6])
        for inode in [pipe, inner, top] { test.volume.forget(inode, count: 1) }
        try test.write("outside", bytes(5000, 77))
        return tree
    }

    func verify(_ test: TestVolume, _ tree: Tree, _ comment: String = "") throws {
        let top = try test.lookUp("tree").inode
        let inner = try test.lookUp("inner", in: top).inode
        defer { for inode in [inner, top] { test.volume.forget(inode, count: 1) } }
        for (name, bytes) in tree.contents { #expect(try test.read(name, in: top) == bytes, "\(comment)") }
        for (name, bytes) in tree.inner { #expect(try test.read(name, in: inner) == bytes, "\(comment)") }
        let volume = test.volume
        func at<R>(_ name: Name, _ parent: Inode, _ body: (Inode) throws(Errno) -> R) throws(Errno) -> R {
            let inode = try test.lookUp(name, in: parent).inode
            defer { volume.forget(inode, count: 1) }
            return try body(inode)
        }
        func attribute(_ name: Name, _ attribute: String) throws -> [UInt8] {
            try at(name, top) { (inode) throws(Errno) in try volume.getAttribute(inode, attribute) }
        }
        func attributes(_ name: Name) throws -> [String] {
            try at(name, top) { (inode) throws(Errno) in try volume.listAttributes(inode) }
        }
        func target(_ name: Name, _ parent: Inode) throws -> [UInt8] {
            try at(name, parent) { (inode) throws(Errno) in try volume.readLink(inode) }
        }
        #expect(try attribute("file4", "user.color") == [9, 9], "\(comment)")
        #expect(try volume.getAttribute(inner, "user.kind") == [7], "\(comment)")
        #expect(try target("link", top) == Array("target".utf8), "\(comment)")
        #expect(try target("long link", inner) == Tree.link, "\(comment)")
        #expect(try attribute("link", "trusted.note") == [5, 5], "\(comment)")
        #expect(try attributes("link") == ["trusted.note"], "\(comment)")
        #expect(try attribute("pipe", "trusted.note") == [6, 6], "\(comment)")
        #expect(try attributes("pipe") == ["trusted.note"], "\(comment)")
        #expect(try test.read("outside") == bytes(5000, 77), "\(comment)")
        let findings = test.check().findings
        #expect(findings.isEmpty, "\(comment): \(findings)")
    }

    func begin(_ test: TestVolume, _ zone: ZoneID, _ path: String = "tree") throws -> PendingWork {
        let directory = try test.volume.resolve(path)
        defer { test.volume.forget(directory, count: 1) }
        return try test.mount.beginAssignment(directory, to: zone)
    }

    /// Goes on with what is noted, as a mount that found the notes.
    func finish(_ test: TestVolume, _ zone: ZoneID, threads: Int = 2) throws {
        if let work = test.mount.keyring(zone)?.pending.first(where: { $0.kind == .assign }) {
            _ = try #require(try test.mount.assign(zone, work, control: SweepControl(), threads: threads))
        }
        if let work = test.mount.keyring(zone)?.pending.first(where: { $0.kind == .reencrypt }) {
            _ = try test.mount.reencrypt(
                zone, work, editing: RewrapTests.editing(test), control: SweepControl(), threads: threads)
        }
    }

    /// The tree is the zone's, with nothing of the source in it; and the source has nothing of it.
    func verifyArrived(
        _ test: TestVolume, _ zone: ZoneID, source: ZoneID = .root, files: UInt64 = 7, comment: String = ""
    ) throws {
        #expect(test.mount.keyring(zone)?.pending.isEmpty == true, "\(comment)")
        let there = try test.mount.coverage(zone)
        let here = try test.mount.coverage(source)
        #expect(there.failed == 0 && here.failed == 0, "\(comment): \(there.failures) \(here.failures)")
        #expect(there.keks.values.reduce(0) { $0 + $1.files } == files, "\(comment): \(there)")
        #expect(there.keks.values.reduce(0) { $0 + $1.directories } == 2, "\(comment)")
        #expect(there.metadata.values.reduce(0, +) == 3, "\(comment): \(there.metadata)")
        #expect(there.deks[.first]?.files ?? 0 == 0, "\(comment): files under the DEKs of before: \(there.deks)")
        #expect(there.mixed == 0, "\(comment)")
        #expect(here.keks.values.reduce(0) { $0 + $1.files } == (source == .root ? 1 : 0), "\(comment): \(here)")
        #expect(here.metadata.isEmpty, "\(comment): \(here.metadata)")
    }

    @Test(arguments: [1, 2]) func everythingGoes(threads: Int) throws {
        let test = try TestVolume()
        let tree = try fill(test)
        let zone = try addZone(test)
        let times = try test.volume.attributes(try test.lookUp("outside").inode).st_mtim
        let directory = try test.volume.resolve("tree")
        let work = try test.mount.beginAssignment(directory, to: zone)
        #expect(test.mount.keyring(zone)?.pending == [work] && work.source == .root)
        let control = SweepControl()
        let next = try #require(
            try test.mount.assign(zone, work, directory: directory, control: control, threads: threads))
        #expect(control.progress.files == 8 && control.progress.directories == 2 && control.progress.links == 3)
        #expect(next.kind == .reencrypt && next.scope == work.scope)
        #expect(test.mount.keyring(zone)?.pending == [next])
        try verify(test, tree)
        try finish(test, zone, threads: threads)
        try verifyArrived(test, zone)
        try verify(test, tree)
        #expect(try test.volume.attributes(try test.lookUp("outside").inode).st_mtim.tv_nsec == times.tv_nsec)
        try test.remount()
        try verify(test, tree)
        let top = try test.lookUp("tree").inode
        #expect(try test.volume.zone(of: top) == zone)
        #expect(code { try test.rename("file1", in: top, to: "moved") } == .crossDevice)
        #expect(code { try test.rename("outside", to: "moved", inside: top) } == .crossDevice)
        try test.rename("file1", in: top, to: "moved", inside: try test.lookUp("inner", in: top).inode)
        try test.rename("tree", to: "tree2")
        // And back, into the zone of its parent.
        _ = try begin(test, .root, "tree2")
        try finish(test, .root)
        #expect(try test.volume.zone(of: test.lookUp("tree2").inode) == .root)
        #expect(try test.mount.coverage(zone).keks.isEmpty)
        #expect(test.check().findings.isEmpty)
    }

    /// Programs hold files open, one without a name, one never stored; both zones are then revoked in turn.
    @Test func openFilesAndRevocation() throws {
        let test = try TestVolume()
        let tree = try fill(test)
        let (first, second) = (try addZone(test), try addZone(test))
        _ = try begin(test, first)
        try finish(test, first)
        let top = try test.lookUp("tree").inode
        let open = try test.open("file5", in: top)
        try open.write([1, 2, 3], at: 50_000)
        let reader = try test.open("file2", in: top, forWriting: false)
        let fresh = try test.create("fresh", in: top)
        let gone = try test.create("gone", in: top)
        try gone.write([4, 4])
        try test.unlink("gone", in: top)
        _ = try begin(test, second)
        try finish(test, second)
        try fresh.write([8])
        try open.write([9], at: 99_999)
        var expected = try #require(tree.contents["file5"])
        expected.replaceSubrange(50_000..<50_003, with: [1, 2, 3])
        expected[99_999] = 9
        func close(_ id: ZoneID) throws {
            let zone = try test.volume.zone(id)
            #expect(zone.drain(.keyRevoked))
            test.volume.settle(test.volume.retainInodes(of: id))
            zone.close(.keyRevoked)
            test.volume.forgetKeys(of: test.volume.retainInodes(of: id))
        }
        try close(first)
        #expect(try open.readAll() == expected)
        #expect(try reader.readAll() == tree.contents["file2"])
        #expect(try fresh.readAll() == [8])
        #expect(code { _ = try gone.readAll() } == .keyRevoked, "it stayed the source's")
        #expect(try test.read("file4", in: top) == tree.contents["file4"])
        try test.volume.zone(first).open(try test.mount.unlock(first))
        #expect(try gone.readAll() == [4, 4])
        try close(second)
        for file in [open, reader, fresh] { #expect(code { _ = try file.readAll() } == .keyRevoked) }
        #expect(code { _ = try test.read("file4", in: top) } == .keyRevoked)
        #expect(try test.read("outside") == bytes(5000, 77))
        try test.volume.zone(second).open(try test.mount.unlock(second))
        #expect(try open.readAll() == expected)
        for file in [open, reader, fresh, gone] { file.close() }
        try test.remount()
        #expect(try test.read("file5", in: test.lookUp("tree").inode) == expected)
        #expect(try test.read("fresh", in: test.lookUp("tree").inode) == [8])
        try verifyArrived(test, second, source: first, files: 8)
        #expect(test.check().findings.isEmpty)
    }

    @Test func refusals() throws {
        let test = try TestVolume()
        let tree = try fill(test)
        let zone = try addZone(test)
        let mount = test.mount
        let top = try test.lookUp("tree").inode
        #expect(
            refusal { () throws(VolumeError) in _ = try mount.beginAssignment(test.top, to: zone) }
                == .unassignable(.volumeRoot))
        #expect(
            refusal { () throws(VolumeError) in _ = try mount.beginAssignment(top, to: .root) }
                == .unassignable(.sameZone))
        let file = try test.lookUp("file1", in: top).inode
        #expect(
            refusal { () throws(VolumeError) in _ = try mount.beginAssignment(file, to: zone) }
                == .unassignable(.notDirectory))
        _ = try test.link(file, as: "other name")
        #expect(
            refusal { () throws(VolumeError) in _ = try mount.beginAssignment(top, to: zone) }
                == .unassignable(.namesOutside(count: 1, paths: ["/tree/file1"])))
        #expect(mount.keyring(zone)?.pending.isEmpty == true)
        try test.unlink("other name")
        let link = try test.lookUp("link", in: top).inode
        _ = try test.link(link, as: "link2", in: top)
        guard
            case .unassignable(.namesOutside(1, _))? = refusal({ () throws(VolumeError) in
                _ = try mount.beginAssignment(top, to: zone)
            })
        else { return #expect(Bool(false), "a link with several names") }
        try test.unlink("link2", in: top)
        _ = try mount.beginAssignment(top, to: zone)
        let third = try addZone(test)
        #expect(
            refusal { () throws(VolumeError) in _ = try mount.beginAssignment(top, to: third) }
                == .unassignable(.underWay))
        try finish(test, zone)
        try verifyArrived(test, zone)
        try verify(test, tree)
    }

    /// Somebody on the lower storage puts a file of one zone in the place of another's: refused without a note, and with one outside
    /// of the tree that it names.
    @Test(arguments: [false, true]) func smuggledFilesAreDamage(noted: Bool) throws {
        let test = try TestVolume()
        _ = try fill(test)
        let zone = try addZone(test)
        let name = Array("ward".utf8)
        let (volume, root) = (test.volume, test.top)
        let ward = try name.withUnsafeBytes { (name) throws(Errno) in
            try volume.makeDirectory(root, name, mode: 0o755, TestVolume.root, zone: zone)
        }.inode
        try test.write("victim", bytes(5000, 5), in: ward)
        try test.remount()
        if noted { _ = try begin(test, zone) }
        let lower = test.lower
        let outer = try test.lowerNames().filter { !$0.hasPrefix("lethefs") && !$0.hasPrefix(".") }
        func isDirectory(_ path: String) -> Bool {
            var info = stat()
            return lstat(lower + "/" + path, &info) == 0 && info.st_mode & 0o170000 == 0o040000
        }
        let outside = try #require(outer.first { !isDirectory($0) })
        let wards = try outer.filter(isDirectory).filter { try test.lowerNames($0).count == 2 }
        let inside = try #require(try test.lowerNames(wards[0]).first { !$0.hasPrefix("lethefs") })
        try Data(contentsOf: URL(filePath: lower + "/" + outside)).write(
            to: URL(filePath: lower + "/" + wards[0] + "/" + inside))
        _ = test.takeDamages()
        let ward2 = try test.lookUp("ward").inode
        #expect(code { _ = try test.read("victim", in: ward2) } == .io)
        #expect(test.takeDamages().map(\.reason) == ["of another volume or zone"])
        #expect(test.check().findings.count == 1)
    }

    /// Programs write, create, rename and unlink in the tree all the while.
    @Test(.timeLimit(.minutes(10)), arguments: [1, 2]) func whileProgramsWork(seed: Int) throws {
        let test = try TestVolume()
        var directories = [try test.makeDirectory("tree")]
        for index in 0..<12 {
            directories.append(try test.makeDirectory("d\(index)", in: directories[index / 3]))
        }
        var model: [Name: (bytes: [UInt8], place: Int)] = [:]
        var generator = SeededGenerator(seed: UInt64(seed))
        for index in 0..<120 {
            let name = Name("f\(index)")
            let place = index % directories.count
            model[name] = (bytes(index * 97, index), place)
            try test.write(name, bytes(index * 97, index), in: directories[place])
            // Known, as what a program renames is.
            _ = try test.lookUp(name, in: directories[place])
        }
        let busy = try test.create("busy", in: directories[3])
        var busyBytes: [UInt8] = []
        for round in 0..<2 {
            let zone = try addZone(test)
            let mount = test.mount
            let top = directories[0]
            let editing = RewrapTests.editing(test)
            let done = DispatchSemaphore(value: 0)
            Thread.detachNewThread {
                do {
                    let work = try mount.beginAssignment(top, to: zone)
                    if let next = try mount.assign(zone, work, directory: top, control: SweepControl()) {
                        _ = try mount.reencrypt(zone, next, editing: editing, control: SweepControl())
                    }
                } catch { Issue.record(error) }
                done.signal()
            }
            var step = 0
            while done.wait(timeout: .now()) == .timedOut {
                step += 1
                try busy.write([UInt8](repeating: UInt8(step % 251), count: 700), at: busyBytes.count)
                busyBytes += [UInt8](repeating: UInt8(step % 251), count: 700)
                let name = Name("f\(Int.random(in: 0..<120, using: &generator))")
                switch step % 4 {
                case 0:
                    let new = Name("n\(round)-\(step)")
                    let place = Int.random(in: 0..<directories.count, using: &generator)
                    try test.write(new, [UInt8(step % 256)], in: directories[place])
                    _ = try test.lookUp(new, in: directories[place])
                    model[new] = ([UInt8(step % 256)], place)
                case 1:
                    guard let known = model[name] else { continue }
                    let place = Int.random(in: 0..<directories.count, using: &generator)
                    let failure = code {
                        try test.rename(name, in: directories[known.place], to: name, inside: directories[place])
                    }
                    // Between what is converted and what is not yet.
                    #expect(failure == nil || failure == .crossDevice)
                    if failure == nil { model[name] = (known.bytes, place) }
                case 2:
                    guard let known = model[name] else { continue }
                    let file = try test.open(name, in: directories[known.place])
                    try file.write([1, 2, 3, 4], at: known.bytes.count)
                    file.close()
                    model[name] = (known.bytes + [1, 2, 3, 4], known.place)
                default:
                    guard let known = model[name] else { continue }
                    #expect(try test.read(name, in: directories[known.place]) == known.bytes)
                }
                usleep(300)
            }
            let coverage = try test.mount.coverage(zone)
            #expect(coverage.failed == 0, "\(coverage.failures)")
            #expect(coverage.keks.values.reduce(0) { $0 + $1.files } == UInt64(model.count + 1), "round \(round)")
            #expect(coverage.keks.values.reduce(0) { $0 + $1.directories } == UInt64(directories.count))
            if round == 0 { #expect(try test.mount.coverage(.root).keks.values.reduce(0) { $0 + $1.files } == 0) }
            for (name, known) in model {
                #expect(try test.read(name, in: directories[known.place]) == known.bytes)
            }
            #expect(try busy.readAll() == busyBytes)
        }
        busy.close()
        try test.remount()
        #expect(test.check().findings.isEmpty)
    }
}
