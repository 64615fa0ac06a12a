import CLinux
import Foundation
import Storage
import Testing
import VolumeEngine
import VolumeFormat

/// A page that cannot be opened any more costs what lies in it, and nothing else of its file.
@Suite struct DamagedPageTests {
    private static let content = (0..<40_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) }
    /// The plaintext of page 2, which is spoiled.
    private static let spoiled = 7616..<11_680

    private func damaged(_ options: Volume.Options = .init()) throws -> TestVolume {
        let test = try TestVolume(features: [], options: options)
        try test.write("file", Self.content)
        let name = try #require(test.lowerNames().first { !$0.contains(".") })
        let handle = try Foundation.FileHandle(forUpdating: URL(fileURLWithPath: test.lower + "/" + name))
        try handle.seek(toOffset: 2 * 4096 + 100)
        try handle.write(contentsOf: [1, 2, 3])
        try handle.close()
        return test
    }

    /// Returns how many files it could not do.
    private func reencrypt(_ test: TestVolume) throws -> UInt64 {
        // Later than whatever DEK the one before made.
        usleep(2_100_000)
        let editing = RewrapTests.editing(test)
        let work = try test.mount.beginReencryption(.root, scope: nil, rate: 0, flags: [], editing: editing)
        let control = SweepControl()
        do { _ = try test.mount.reencrypt(.root, work, editing: editing, control: control, threads: 1) } catch {
            #expect(control.progress.failed > 0, "\(error)")
        }
        return control.progress.failed
    }

    /// Re-encryptions that fail at the page, one after the other, take nothing from the programs.
    @Test(.timeLimit(.minutes(10))) func afterManyReencryptions() throws {
        let test = try damaged()
        for _ in 0..<4 { #expect(try reencrypt(test) == 1) }
        var model = Self.content
        let file = try test.open("file")
        func write(_ byte: UInt8, _ range: Range<Int>) throws {
            try file.write([UInt8](repeating: byte, count: range.count), at: range.lowerBound)
            model.replaceSubrange(range, with: [UInt8](repeating: byte, count: range.count))
        }
        try write(1, 20_000..<29_000)
        try file.allocate([.punchHole, .keepSize], at: 30_000, count: 5000)
        model.replaceSubrange(30_000..<35_000, with: [UInt8](repeating: 0, count: 5000))
        try file.truncate(to: 39_000)
        model.removeLast(1000)
        #expect(throws: Errno.io) { try file.readAll() }
        try write(2, Self.spoiled)
        #expect(try file.readAll() == model)
        file.close()
        // The page is whole again: under a DEK that is not due, and no other.
        #expect(try reencrypt(test) == 0)
        let coverage = try test.mount.coverage(.root)
        #expect(coverage.mixed == 0)
        #expect(coverage.deks.filter { $0.value.files > 0 }.keys.map(\.rawValue) == [4], "\(coverage)")
        #expect(try test.read("file") == model)
        _ = test.takeDamages()
        try test.remount()
        #expect(try test.read("file") == model)
        #expect(test.check().findings.isEmpty)
    }

    /// A file that needs a fifth DEK and cannot have it can be emptied, and is whole then.
    @Test(.timeLimit(.minutes(10)), arguments: [false, true]) func emptied(flushesFail: Bool) throws {
        let test = try damaged(DEKReplacementTests.options())
        let file = try test.open("file")
        var failed = false
        for _ in 0..<200 where !failed {
            do { try file.write([UInt8](repeating: 1, count: 4064), at: 15_744) } catch { failed = true }
        }
        #expect(failed)
        if flushesFail {
            FaultInjection.arm(nth: 1, of: [.fsync], fault: .errno(.io))
            #expect(throws: Errno.io) { try file.sync() }
            FaultInjection.disarm()
        }
        try file.truncate(to: 0)
        #expect(file.size == 0)
        if !flushesFail {
            try file.write([1, 2, 3])
            #expect(try file.readAll() == [1, 2, 3])
        }
        let expected = try file.readAll()
        file.close()
        try test.remount()
        #expect(try test.read("file") == expected)
        #expect(test.check().findings.isEmpty)
    }
}
