import CLinux
import Foundation
import KeyManagement
import Storage
import Synchronization
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// New DEKs for files in use and at rest: no byte is lost, nothing stays under an old DEK, and a copy from before opens nothing.
@Suite struct ReencryptTests {
    private func begin(_ test: TestVolume, scope: UniqueID? = nil) throws -> PendingWork {
        try test.mount.beginReencryption(
            .root, scope: scope, rate: 0, flags: [], editing: RewrapTests.editing(test))
    }

    @discardableResult
    private func reencrypt(_ test: TestVolume, threads: Int = 2) throws -> UInt64 {
        let work = try #require(test.mount.keyring(.root)?.pending.first { $0.kind == .reencrypt })
        return try test.mount.reencrypt(
            .root, work, editing: RewrapTests.editing(test), control: SweepControl(), threads: threads)
    }

    private func verify(_ test: TestVolume, _ contents: [Name: [UInt8]]) throws {
        for (name, bytes) in contents { #expect(try test.read(name) == bytes) }
        #expect(test.check().findings.isEmpty)
    }

    @Test(arguments: [1, 2])
    func everyFileGetsANewDEK(threads: Int) throws {
        let test = try TestVolume()
        let contents = try RewrapTests.fill(test)
        let modified = try test.volume.attributes(try test.lookUp("file4").inode).st_mtim
        let attributed = try test.lookUp("file1").inode
        _ = try begin(test)
        #expect(try reencrypt(test, threads: threads) == 13)
        #expect(test.mount.keyring(.root)?.pending.isEmpty == true)
        #expect(test.mount.keyring(.root)?.metadataKeys.map(\.version.rawValue) == [2])
        let coverage = try test.mount.coverage(.root)
        #expect(coverage.deks.mapValues(\.files) == [.first: 0, KeyVersion(rawValue: 2): 13], "\(coverage)")
        #expect(coverage.mixed == 0 && coverage.metadata.keys.map(\.rawValue) == [2])
        let after = try test.volume.attributes(try test.lookUp("file4").inode).st_mtim
        #expect(after.tv_sec == modified.tv_sec && after.tv_nsec == modified.tv_nsec)
        #expect(try test.volume.getAttribute(attributed, "user.color") == [9, 9])
        #expect(try test.volume.listAttributes(attributed) == ["user.color"])
        try verify(test, contents)
        try test.remount()
        try verify(test, contents)
        // Again, with slots left over from nothing.
        _ = try begin(test)
        #expect(try reencrypt(test) == 13)
        try verify(test, contents)
    }

    /// Programs write, append, truncate and punch while every page is sealed anew.
    @Test(.timeLimit(.minutes(10)), arguments: [1, 2, 3])
    func whileAProgramWrites(seed: Int) throws {
        let test = try TestVolume()
        let file = try test.create("busy")
        var model = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ seed) }
        try file.write(model)
        var generator = SeededGenerator(seed: UInt64(seed))
        for _ in 0..<3 {
            let work = try begin(test)
            let mount = test.mount
            let editing = RewrapTests.editing(test)
            let done = DispatchSemaphore(value: 0)
            Thread.detachNewThread {
                do { _ = try mount.reencrypt(.root, work, editing: editing, control: SweepControl()) } catch {
                    Issue.record(error)
                }
                done.signal()
            }
            for _ in 0..<60 {
                let offset = Int.random(in: 0..<model.count, using: &generator)
                switch Int.random(in: 0..<5, using: &generator) {
                case 0:
                    let bytes = [UInt8](repeating: UInt8.random(in: 0...255, using: &generator), count: 5000)
                    try file.write(bytes, at: model.count)
                    model += bytes
                case 1:
                    try file.truncate(to: max(100_000, offset))
                    if max(100_000, offset) < model.count {
                        model.removeLast(model.count - max(100_000, offset))
                    } else {
                        model += [UInt8](repeating: 0, count: max(100_000, offset) - model.count)
                    }
                case 2:
                    let count = min(20_000, model.count - offset)
                    try file.allocate([.punchHole, .keepSize], at: offset, count: count)
                    model.replaceSubrange(offset..<(offset + count), with: [UInt8](repeating: 0, count: count))
                default:
                    let bytes = [UInt8](repeating: UInt8.random(in: 0...255, using: &generator), count: 9000)
                    try file.write(bytes, at: offset)
                    if offset + 9000 > model.count {
                        model += [UInt8](repeating: 0, count: offset + 9000 - model.count)
                    }
                    model.replaceSubrange(offset..<(offset + 9000), with: bytes)
                }
            }
            done.wait()
            #expect(try file.readAll() == model)
            let coverage = try test.mount.coverage(.root)
            #expect(coverage.mixed == 0, "\(coverage)")
        }
        file.close()
        try test.remount()
        #expect(try test.read("busy") == model)
        #expect(test.check().findings.isEmpty)
    }

    /// A crash after every lower call of the sweep: each file opens, and the sweep that goes on finishes.
    @Test(.timeLimit(.minutes(10)), arguments: [Errno.io, .noSpace])
    func everyCallFailsFromThereOn(errno: Errno) throws {
        let test = try TestVolume(inMemory: true)
        let contents = try RewrapTests.fill(test, files: 6)
        try test.close()
        let base = test.lower
        var nth = 0
        var seen = 0
        // The first round counts, and fails nothing.
        while nth <= seen {
            for repeats in [false, true] {
                let copy = test.temporary["case"]
                try copyTree(base, to: copy)
                let one = try TestVolume(lower: copy, in: test.temporary, cmk: test.cmk)
                _ = try begin(one)
                FaultInjection.arm(
                    nth: nth == 0 ? .max : nth, of: FailingCallTests.everyCall, fault: .errno(errno), repeats: repeats)
                _ = try? reencrypt(one, threads: 1)
                let count = FaultInjection.disarm()
                seen = repeats ? seen : max(seen, count)
                try one.crash()
                for (name, bytes) in contents { #expect(try one.read(name) == bytes, "call \(nth)") }
                #expect(one.check().findings.isEmpty, "call \(nth)")
                if one.mount.keyring(.root)?.pending.isEmpty == false { try reencrypt(one, threads: 1) }
                let coverage = try one.mount.coverage(.root)
                #expect(coverage.deks[.first]?.files ?? 0 == 0 && coverage.mixed == 0, "call \(nth): \(coverage)")
                for (name, bytes) in contents { #expect(try one.read(name) == bytes, "call \(nth)") }
                try runProgram("/bin/rm", ["-rf", copy, one.lower])
            }
            nth += 2 + nth / 6
        }
        #expect(seen > 50)
    }

    /// After rotation, re-encryption and retirement, a copy from before is of no use: not with its keyring, not with its headers.
    @Test func aCopyFromBeforeOpensNothing() throws {
        let test = try TestVolume()
        let contents = try RewrapTests.fill(test)
        let editing = RewrapTests.editing(test)
        try test.close()
        let copy = test.temporary["before"]
        try copyTree(test.lower, to: copy)
        try test.open()
        _ = try test.mount.rotateKEK(.root, editing: editing)
        try test.mount.rewrap(.root, control: SweepControl())
        _ = try begin(test)
        try reencrypt(test)
        #expect(try test.mount.retire(.root, .first, editing: editing) == 1)
        try verify(test, contents)
        #expect(throws: (any Error).self) { _ = try TestVolume(lower: copy, in: test.temporary, cmk: test.cmk) }
    }

    @Test func shreddingEndsEveryCopy() throws {
        let test = try TestVolume()
        var contents = try RewrapTests.fill(test)
        let editing = RewrapTests.editing(test)
        try test.close()
        let copy = test.temporary["before"]
        try copyTree(test.lower, to: copy)
        try test.open()
        try test.mount.beginShredding(.root)
        try test.unlink("file5")
        contents["file5"] = nil
        // Dies in the middle: the note is there, and whoever goes on finishes.
        try test.crash()
        #expect(test.mount.keyring(.root)?.pending.map(\.kind) == [.shred])
        let shredded = try test.mount.finishShredding(
            .root, editing: RewrapTests.editing(test), control: SweepControl())
        #expect(shredded.destroyed == [.first] && shredded.refused == [.first] && shredded.versionKeys == 1)
        #expect(test.mount.keyring(.root)?.pending.isEmpty == true)
        try verify(test, contents)
        #expect(throws: (any Error).self) { _ = try TestVolume(lower: copy, in: test.temporary, cmk: test.cmk) }
        withExtendedLifetime(editing) {}
    }

    /// Where no version keys are made, nothing is deleted in the belief that it was shredded.
    @Test func shreddingWithoutVersionKeysIsRefused() throws {
        let test = try TestVolume(cmk: try InMemoryCMK(makesVersionKeys: false))
        #expect(throws: VolumeError.unguarded(.first)) { try test.mount.beginShredding(.root) }
    }

    /// One directory alone.
    @Test func scope() throws {
        let test = try TestVolume()
        _ = try RewrapTests.fill(test)
        let work = try begin(test, scope: try test.volume.identity(of: "directory"))
        // The file below it, and the one that has its second name there.
        #expect(
            try test.mount.reencrypt(.root, work, editing: RewrapTests.editing(test), control: SweepControl()) == 2)
        #expect(test.mount.keyring(.root)?.pending.isEmpty == true)
    }

    /// An attribute that is still under the old DEK, as the sweep was cancelled among the pages, is there for XATTR_CREATE and XATTR_REPLACE.
    @Test func attributesUnderAnOldDEK() throws {
        let test = try TestVolume()
        try test.write("file", [UInt8](repeating: 1, count: 3_000_000))
        let inode = try test.lookUp("file").inode
        try test.setAttribute(inode, "user.old", [1])
        let work = try begin(test)
        let control = SweepControl()
        FaultInjection.arm(nth: 3, of: [.pwrite]) { control.cancel() }
        _ = try test.mount.reencrypt(.root, work, editing: RewrapTests.editing(test), control: control, threads: 1)
        FaultInjection.disarm()
        #expect(control.isCancelled && control.progress.sealed > 0)
        #expect(try test.mount.coverage(.root).mixed == 1)
        #expect(throws: Errno.exists) { try test.setAttribute(inode, "user.old", [2], flags: XATTR_CREATE) }
        #expect(try test.volume.getAttribute(inode, "user.old") == [1])
        #expect(throws: Errno.noData) { try test.setAttribute(inode, "user.new", [2], flags: XATTR_REPLACE) }
        try test.setAttribute(inode, "user.old", [3], flags: XATTR_REPLACE)
        try test.setAttribute(inode, "user.new", [4], flags: XATTR_CREATE)
        #expect(try reencrypt(test) == 1)
        #expect(try test.volume.getAttribute(inode, "user.old") == [3])
        #expect(try test.volume.getAttribute(inode, "user.new") == [4])
        #expect(Set(try test.volume.listAttributes(inode)) == ["user.old", "user.new"])
    }

    /// Files that are known by a name that they have lost are done all the same.
    @Test func filesKnownByALostName() throws {
        var options = Volume.Options()
        options.handleCapacity = 2
        let test = try TestVolume(options: options)
        for number in 0..<6 {
            try test.write(Name("file\(number)"), [1, 2, 3])
            let inode = try test.lookUp(Name("file\(number)")).inode
            _ = try test.link(inode, as: Name("other\(number)"))
            try test.unlink(Name("other\(number)"))
        }
        _ = try begin(test)
        #expect(try reencrypt(test) == 6)
        #expect(try test.mount.coverage(.root).deks[.first]?.files == 0)
    }

    /// Makes a file on another thread: faults are armed for one.
    private static func makeMeanwhile(_ volume: Volume, in top: Inode) {
        let made = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            do {
                try Array("meanwhile".utf8).withUnsafeBytes { (name) throws in
                    let file = try volume.create(top, name, mode: 0o644, flags: O_RDWR, TestVolume.root)
                    volume.closeContent(file.content)
                }
            } catch { Issue.record(error) }
            made.signal()
        }
        #expect(made.wait(timeout: .now() + 5) == .success)
    }

    /// A file is made under the old KEK when the new one's note has been dated, and is not stored yet: it is due as well.
    @Test func compromisedWhileFilesAreMade() throws {
        let test = try TestVolume()
        let (volume, top) = (test.volume, test.top)
        FaultInjection.arm(nth: 1, of: [.fsync]) {
            usleep(1_300_000)
            Self.makeMeanwhile(volume, in: top)
        }
        _ = try test.mount.rotateKEK(.root, editing: RewrapTests.editing(test), compromised: true)
        FaultInjection.disarm()
        try test.mount.rewrap(.root, control: SweepControl())
        #expect(try reencrypt(test) == 1)
    }

    /// The clock was ahead when DEKs were made, and is right now: who wants new DEKs gets them for those files, too.
    @Test func aClockThatWasAhead() throws {
        let test = try TestVolume()
        let contents = try RewrapTests.fill(test)
        let ahead = Volume.now + 40_000_000
        func age() throws -> [UInt64: UInt64] { try test.mount.coverage(.root, ageStep: 1).filesByAge }
        // Whatever the clock says, they are made after the cutoff.
        _ = try test.mount.beginReencryption(
            .root, scope: nil, rate: 0, flags: [], editing: RewrapTests.editing(test), cutoff: ahead)
        #expect(try reencrypt(test) == 13)
        #expect(try age().keys.allSatisfy { $0 > ahead })
        // A policy's schedule leaves them, and so does what is meant for links alone.
        _ = try test.mount.beginReencryption(
            .root, scope: nil, rate: 0, flags: [], editing: RewrapTests.editing(test), cutoff: Volume.now)
        #expect(try reencrypt(test) == 0)
        try test.mount.beginMetadataRenewal(.root, editing: RewrapTests.editing(test))
        #expect(try reencrypt(test) == 0)
        _ = try begin(test)
        #expect(try reencrypt(test) == 13)
        #expect(try age().keys.allSatisfy { $0 < ahead })
        #expect(try reencryptAgain(test) == 0)
        try verify(test, contents)
    }

    /// What is noted is done once more: DEKs that it has made are new enough for it.
    private func reencryptAgain(_ test: TestVolume) throws -> UInt64 {
        let work = try begin(test)
        let editing = RewrapTests.editing(test)
        _ = try test.mount.reencrypt(.root, work, editing: editing, control: SweepControl())
        return try test.mount.reencrypt(.root, work, editing: editing, control: SweepControl())
    }

    /// The daemon dies between a compromised KEK's successor and the date of the re-encryption that follows: what was made until then is due.
    @Test func aCrashBeforeACompromisedKEKIsDated() throws {
        let test = try TestVolume()
        let (volume, top) = (test.volume, test.top)
        FaultInjection.arm(nth: 1, of: [.fsync]) {
            usleep(2_300_000)
            Self.makeMeanwhile(volume, in: top)
            // The keyring with the new KEK is stored, and then no more.
            FaultInjection.arm(nth: 2, of: [.renameat2], fault: .errno(.io), repeats: true)
        }
        #expect(throws: VolumeError.self) {
            _ = try test.mount.rotateKEK(.root, editing: RewrapTests.editing(test), compromised: true)
        }
        FaultInjection.disarm()
        try test.crash()
        #expect(test.mount.keyring(.root)?.pending.map(\.kind) == [.rewrap, .reencrypt])
        let cancelled = SweepControl()
        cancelled.cancel()
        try test.mount.rewrap(.root, control: cancelled)
        let dated = test.mount.keyring(.root)?.pending
        // Once: a rewrap that is tried again does not have everything encrypted again.
        try test.mount.rewrap(.root, control: cancelled)
        #expect(test.mount.keyring(.root)?.pending == dated)
        try test.mount.rewrap(.root, control: SweepControl())
        #expect(try reencrypt(test) == 1)
    }

    /// A sweep that is paused holds no file: they can be removed, and their room is free.
    @Test func aPausedSweepHoldsNoFiles() throws {
        let test = try TestVolume()
        for number in 0..<20 { try test.write(Name("file\(number)"), [UInt8](repeating: 1, count: 20_000)) }
        let inodes = try (0..<20).map { try test.lookUp(Name("file\($0)")).inode }
        let work = try begin(test)
        let (mount, editing) = (test.mount, RewrapTests.editing(test))
        let control = SweepControl()
        let ended = DispatchSemaphore(value: 0)
        let count = Mutex<UInt64>(0)
        Thread.detachNewThread {
            FaultInjection.arm(nth: 8, of: [.pwrite]) { control.setPaused(true) }
            do {
                let done = try mount.reencrypt(.root, work, editing: editing, control: control, threads: 1)
                count.withLock { $0 = done }
            } catch { Issue.record(error) }
            FaultInjection.disarm()
            ended.signal()
        }
        let deadline = Date.now + 10
        while !control.isPaused, Date.now < deadline { usleep(1000) }
        usleep(100_000)
        while test.volume.keysHeld(by: inodes) > 0, Date.now < deadline { usleep(1000) }
        #expect(control.isPaused && test.volume.keysHeld(by: inodes) == 0)
        #expect(control.progress.files < 20)
        control.setPaused(false)
        ended.wait()
        #expect(count.withLock { $0 } == 20)
        #expect(try test.mount.coverage(.root).mixed == 0)
        #expect(test.check().findings.isEmpty)
    }
}
