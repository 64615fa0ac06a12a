import Foundation
import KeyManagement
import Storage
import Synchronization
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// A new KEK and what it takes to be rid of the old one, on a tree with everything in it.
@Suite struct RewrapTests {
    /// A tree with files of several sizes, hard links, links, directories, long names; what it holds, by name.
    static func fill(_ test: TestVolume, files: Int = 12) throws -> [Name: [UInt8]] {
        var contents: [Name: [UInt8]] = [:]
        for index in 0..<files {
            let size = [0, 1, 3552, 3553, 9000, 100_000][index % 6]
            let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ index) }
            let name = Name(
                Array((index == 3 ? String(repeating: "long", count: 60) : "file").utf8) + Array("\(index)".utf8))
            try test.write(name, bytes)
            contents[name] = bytes
        }
        let directory = try test.makeDirectory("directory")
        _ = try test.makeDirectory("inner", in: directory)
        try test.write("below", [1, 2, 3], in: directory)
        test.volume.forget(try test.makeLink("link", to: Array("target".utf8)), count: 1)
        let linked = try test.lookUp("file1").inode
        _ = try test.link(linked, as: "second name", in: directory)
        try test.setAttribute(linked, "user.color", [9, 9])
        return contents
    }

    static func error(_ body: () throws(VolumeError) -> Void) -> VolumeError? {
        do throws(VolumeError) {
            try body()
            return nil
        } catch { return error }
    }

    static func editing(_ test: TestVolume) -> KeyringEditing { KeyringEditing(resolve: resolver([test.cmk])) }

    func verify(_ test: TestVolume, _ contents: [Name: [UInt8]]) throws {
        for (name, bytes) in contents { #expect(try test.read(name) == bytes) }
        let report = test.check()
        #expect(report.findings.isEmpty, "\(report.findings)")
    }

    @Test(arguments: [1, 2])
    func everythingGetsWrappedAnewAndTheOldVersionCanGo(threads: Int) throws {
        let test = try TestVolume()
        let contents = try Self.fill(test)
        let editing = Self.editing(test)
        let modified = try test.volume.attributes(try test.lookUp("file4").inode).st_mtim
        let version = try test.mount.rotateKEK(.root, editing: editing)
        #expect(version.rawValue == 2)
        #expect(test.mount.keyring(.root)?.pending.map(\.kind) == [.rewrap])
        #expect(throws: VolumeError.self) { _ = try test.mount.retire(.root, .first, editing: editing) }
        let control = SweepControl()
        try test.mount.rewrap(.root, control: control, threads: threads)
        // 12 files, one below, the root and two directories.
        #expect(control.progress.changed == 16)
        #expect(test.mount.keyring(.root)?.pending.isEmpty == true)
        let after = try test.volume.attributes(try test.lookUp("file4").inode).st_mtim
        #expect(after.tv_sec == modified.tv_sec && after.tv_nsec == modified.tv_nsec)
        let coverage = try test.mount.coverage(.root, threads: threads)
        #expect(coverage.keks.keys.map(\.rawValue) == [2])
        #expect(coverage.keks[version]?.files == 13 && coverage.keks[version]?.directories == 3)
        #expect(coverage.metadata == [.first: 1])
        try verify(test, contents)
        #expect(try test.mount.retire(.root, .first, editing: editing) == 1)
        #expect(test.mount.keyring(.root)?.keks.map(\.state) == [.destroyed, .active])
        try verify(test, contents)
        try test.remount()
        try verify(test, contents)
    }

    /// Open files, unlinked ones and files that were never stored: none is left behind, none loses a byte.
    @Test func openFiles() throws {
        let test = try TestVolume()
        let contents = try Self.fill(test)
        let open = try test.open("file5")
        try open.write([7, 7, 7], at: 50_000)
        let gone = try test.create("gone")
        try gone.write([1, 2, 3])
        try test.unlink("gone")
        let fresh = try test.create("fresh")
        let reader = try test.open("file4", forWriting: false)
        let editing = Self.editing(test)
        _ = try test.mount.rotateKEK(.root, editing: editing)
        try test.mount.rewrap(.root, control: SweepControl(), threads: 1)
        let coverage = try test.mount.coverage(.root, threads: 1)
        #expect(coverage.keks.keys.map(\.rawValue) == [2], "\(coverage)")
        #expect(coverage.unlinked == 1)
        try open.write([8], at: 99_999)
        try gone.write([4], at: 3)
        #expect(try gone.readAll() == [1, 2, 3, 4])
        try fresh.write([5])
        #expect(try reader.readAll() == contents["file4"])
        for file in [open, gone, fresh, reader] { file.close() }
        #expect(try test.mount.retire(.root, .first, editing: editing) == 1)
        try test.remount()
        var expected = try #require(contents["file5"])
        expected.replaceSubrange(50_000..<50_003, with: [7, 7, 7])
        expected[99_999] = 8
        #expect(try test.read("file5") == expected)
        #expect(try test.read("fresh") == [5])
        #expect(test.check().findings.isEmpty)
    }

    /// What was missed by accident is told by count and path, and the version stays.
    @Test func retiringIsRefusedWhileSomethingNeedsIt() throws {
        let test = try TestVolume()
        _ = try Self.fill(test)
        let editing = Self.editing(test)
        _ = try test.mount.rotateKEK(.root, editing: editing)
        let refusal = Self.error { () throws(VolumeError) in
            _ = try test.mount.retire(.root, .first, editing: editing)
        }
        guard case .stillProtects(let version, let count, let paths)? = refusal else {
            return #expect(Bool(false), "\(String(describing: refusal))")
        }
        #expect(version == .first && count == 16 && paths.count == 10)
        #expect(paths.allSatisfy { $0.hasPrefix("/") })
        #expect(throws: VolumeError.keyring(.inUse)) {
            _ = try test.mount.retire(.root, KeyVersion(rawValue: 2), editing: editing)
        }
        #expect(test.mount.keyring(.root)?.keks.map(\.state) == [.deactivated, .active])
    }

    /// A crash at any moment: both versions open, and the sweep goes on where it was.
    @Test func aCrashInBetween() throws {
        let test = try TestVolume()
        let contents = try Self.fill(test)
        let editing = Self.editing(test)
        _ = try test.mount.rotateKEK(.root, editing: editing)
        try test.crash()
        #expect(test.mount.keyring(.root)?.pending.map(\.kind) == [.rewrap])
        try verify(test, contents)
        try test.mount.rewrap(.root, control: SweepControl())
        try test.crash()
        try verify(test, contents)
        #expect(try test.mount.retire(.root, .first, editing: Self.editing(test)) == 1)
    }

    /// Every lower call of a sweep fails once: nothing is lost, and the next sweep finishes.
    @Test(arguments: [Errno.io, .noSpace])
    func everyCallFailsOnce(errno: Errno) throws {
        let test = try TestVolume(inMemory: true)
        let contents = try Self.fill(test, files: 6)
        try test.close()
        let base = test.lower
        var nth = 0
        var seen = 0
        // The first round counts, and fails nothing.
        while nth <= seen {
            let copy = test.temporary["case"]
            try copyTree(base, to: copy)
            let one = try TestVolume(lower: copy, in: test.temporary, cmk: test.cmk)
            let editing = Self.editing(one)
            FaultInjection.arm(
                nth: nth == 0 ? .max : nth, of: FailingCallTests.everyCall, fault: .errno(errno))
            _ = try? one.mount.rotateKEK(.root, editing: editing)
            try? one.mount.rewrap(.root, control: SweepControl(), threads: 1)
            seen = max(seen, FaultInjection.disarm())
            try one.crash()
            for (name, bytes) in contents { #expect(try one.read(name) == bytes, "call \(nth)") }
            #expect(one.check().findings.isEmpty, "call \(nth)")
            if one.mount.keyring(.root)?.keks.count == 1 {
                _ = try one.mount.rotateKEK(.root, editing: Self.editing(one))
            }
            try one.mount.rewrap(.root, control: SweepControl(), threads: 1)
            #expect(try one.mount.coverage(.root).keks.count == 1, "call \(nth)")
            try runProgram("/bin/rm", ["-rf", copy, one.lower])
            nth += 2 + nth / 6
        }
        #expect(seen > 50)
    }

    /// Directories that move from where the sweep was not yet to where it has been, all the time.
    @Test(.timeLimit(.minutes(10))) func movesWhileItWalks() throws {
        let test = try TestVolume()
        var directories: [Inode] = []
        for index in 0..<20 {
            let directory = try test.makeDirectory(Name(Array("d\(index)".utf8)))
            for file in 0..<20 { try test.write(Name(Array("f\(file)".utf8)), [1, 2, 3], in: directory) }
            directories.append(directory)
        }
        for round in 0..<5 {
            let version = try test.mount.rotateKEK(.root, editing: Self.editing(test))
            let mount = test.mount
            let done = DispatchSemaphore(value: 0)
            Thread.detachNewThread {
                do { try mount.rewrap(.root, control: SweepControl(), threads: 2) } catch { Issue.record(error) }
                done.signal()
            }
            for step in 0..<60 {
                let (from, to) = (directories[step % 20], directories[(step * 7 + 3) % 20])
                let name = Name(Array("f\(step % 20)".utf8))
                try? test.rename(name, in: from, to: Name(Array("m\(round)-\(step)".utf8)), inside: to)
            }
            done.wait()
            let coverage = try test.mount.coverage(.root)
            #expect(coverage.keks.keys.map { $0 } == [version], "\(coverage.keks)")
        }
        #expect(test.check().findings.isEmpty)
    }

    /// A directory has gone from where the sweep was not yet to where it has been, and nothing says so yet as the walk ends.
    @Test(arguments: 3...9) func aMoveIsUnderWayAsTheWalkEnds(call: Int) throws {
        for (from, to) in [("a", "b"), ("b", "a")] {
            let test = try TestVolume(inMemory: true)
            let directories = try ["a", "b"].map { try test.makeDirectory(Name(stringLiteral: $0)) }
            let (old, new) = from == "a" ? (directories[0], directories[1]) : (directories[1], directories[0])
            let moving = try test.makeDirectory("x", in: old)
            try test.write("file", [1, 2, 3], in: moving)
            test.volume.forget(try test.makeDirectory("x", in: new), count: 1)
            let version = try test.mount.rotateKEK(.root, editing: Self.editing(test))
            let volume = test.volume
            let (begun, ended) = (DispatchSemaphore(value: 0), DispatchGroup())
            FaultInjection.arm(nth: call, of: [.getdents64]) {
                ended.enter()
                Thread.detachNewThread {
                    // Both have changed places, and the empty one is about to be removed.
                    FaultInjection.arm(nth: 2, of: [.renameat2]) {
                        begun.signal()
                        usleep(300_000)
                    }
                    Array("x".utf8).withUnsafeBytes { name in
                        do { try volume.rename(old, name, new, name, flags: 0) } catch { Issue.record(error) }
                    }
                    FaultInjection.disarm()
                    ended.leave()
                }
                _ = begun.wait(timeout: .now() + 5)
            }
            try test.mount.rewrap(.root, control: SweepControl(), threads: 1)
            FaultInjection.disarm()
            ended.wait()
            let coverage = try test.mount.coverage(.root)
            #expect(coverage.keks.keys.map { $0 } == [version], "from \(from) to \(to): \(coverage.keks)")
            #expect(test.check().findings.isEmpty)
        }
    }

    /// A program that renames for ever keeps no sweep from its end.
    @Test(.timeLimit(.minutes(2))) func namesThatMoveAllTheTime() throws {
        let test = try TestVolume()
        _ = try Self.fill(test)
        let volume = test.volume
        let isOver = Atomic<Bool>(false)
        let (ended, root) = (DispatchGroup(), volume.rootInode)
        for name in ["file1", "directory"] {
            ended.enter()
            Thread.detachNewThread {
                var names = (Array(name.utf8), Array("\(name), renamed".utf8))
                while !isOver.load(ordering: .relaxed) {
                    names.0.withUnsafeBytes { old in
                        names.1.withUnsafeBytes { new in
                            do { try volume.rename(root, old, root, new, flags: 0) } catch { Issue.record(error) }
                        }
                    }
                    names = (names.1, names.0)
                }
                ended.leave()
            }
        }
        let version = try test.mount.rotateKEK(.root, editing: Self.editing(test))
        let outcome = Result { try test.mount.rewrap(.root, control: SweepControl(), threads: 1) }
        isOver.store(true, ordering: .relaxed)
        ended.wait()
        try outcome.get()
        let coverage = try test.mount.coverage(.root)
        #expect(coverage.keks.keys.map { $0 } == [version], "\(coverage.keks)")
        #expect(test.check().findings.isEmpty)
    }

    /// As long as it is not certain that everything was wrapped anew, no version goes.
    @Test func retiringIsRefusedWhileARewrapIsNoted() throws {
        let test = try TestVolume()
        _ = try Self.fill(test)
        let editing = Self.editing(test)
        _ = try test.mount.rotateKEK(.root, editing: editing)
        try test.mount.rewrap(.root, control: SweepControl())
        _ = try test.mount.rotateKEK(.root, editing: editing)
        #expect(throws: VolumeError.rewrapPending) {
            _ = try test.mount.retire(.root, .first, editing: editing)
        }
        #expect(test.mount.keyring(.root)?.keks.map(\.state) == [.deactivated, .deactivated, .active])
        try test.mount.rewrap(.root, control: SweepControl())
        // A shredding rewraps, too.
        let replaced = try test.mount.beginShredding(.root)
        #expect(throws: VolumeError.rewrapPending) {
            _ = try test.mount.retire(.root, .first, editing: editing)
        }
        // One beside it leaves the metadata keys where they are, until it is called off.
        _ = try test.mount.rotateKEK(.root, editing: editing)
        try test.mount.rewrap(.root, control: SweepControl())
        #expect(test.mount.keyring(.root)?.metadataKeys.map(\.kekVersion.rawValue) == [3])
        try test.mount.cancelShredding(.root, restoring: replaced, editing: editing)
        #expect(test.mount.keyring(.root)?.metadataKeys.map(\.kekVersion.rawValue) == [4])
        #expect(try test.mount.retire(.root, .first, editing: editing) == 1)
    }
}
