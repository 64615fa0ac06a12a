import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// A flush fails once: the kernel gives up the pages that it could not write, goes on showing them, and says nothing the next time. No key
/// that they may need is let go after that.
@Suite struct LostFlushTests {
    private static let content = (0..<300 * 4096).map { UInt8(truncatingIfNeeded: $0 / 11) }

    private func reencrypt(_ test: TestVolume, failing nth: Int = .max) throws {
        let work = try #require(test.mount.keyring(.root)?.pending.first { $0.kind == .reencrypt })
        FaultInjection.arm(nth: nth, of: [.syncfs, .fsync], fault: .errno(.io))
        defer { FaultInjection.disarm() }
        _ = try test.mount.reencrypt(
            .root, work, editing: RewrapTests.editing(test), control: SweepControl(), threads: 1)
    }

    private func isRefused(_ body: () throws -> Void) -> Bool {
        do {
            try body()
            return false
        } catch VolumeError.lostFlush { return true } catch { return false }
    }

    /// The flush of the header's new slot, that of the pages, and the last one, after which the work is done.
    @Test(.timeLimit(.minutes(10)), arguments: [1, 2, 3], [false, true])
    func endsWhatLetsKeysGo(flush: Int, hasTree: Bool) throws {
        let test = try TestVolume(features: hasTree ? .pageTree : [])
        try test.write("file", Self.content)
        try test.write("small", [1, 2, 3])
        _ = try test.mount.beginReencryption(
            .root, scope: nil, rate: 0, flags: [], editing: RewrapTests.editing(test))
        #expect(throws: VolumeError.self) { try reencrypt(test, failing: flush) }
        let coverage = try test.mount.coverage(.root)
        if flush < 3 {
            #expect(
                coverage.deks[.first]?.files == 2 || coverage.mixed == 2,
                "the old DEK went with a failed flush: \(coverage)")
        }
        #expect(isRefused { try reencrypt(test) })
        #expect(isRefused { try test.mount.rewrap(.root, control: SweepControl()) })
        #expect(test.mount.keyring(.root)?.pending.contains { $0.kind == .reencrypt } == true)
        // Programs go on.
        try test.write("another", Self.content)
        #expect(try test.read("file") == Self.content)
        #expect(test.volume.isDirty)
        try test.remount()
        try reencrypt(test)
        #expect(test.mount.keyring(.root)?.pending == [])
        #expect(try test.read("file") == Self.content)
        #expect(try test.read("another") == Self.content)
        #expect(try test.read("small") == [1, 2, 3])
        #expect(test.check().findings.isEmpty)
    }

    /// What a program is told of is known to rotations, too.
    @Test(.timeLimit(.minutes(10))) func aProgramsFlush() throws {
        let test = try TestVolume()
        let file = try test.create("file")
        try file.write(Self.content)
        FaultInjection.arm(nth: 1, of: [.fsync], fault: .errno(.io))
        #expect(throws: Errno.io) { try file.sync() }
        FaultInjection.disarm()
        #expect(isRefused { try test.mount.rewrap(.root, control: SweepControl()) })
        file.close()
        try test.remount()
        try test.mount.rewrap(.root, control: SweepControl())
        #expect(try test.read("file") == Self.content)
    }

    /// A file whose four slots are taken is not brought to one DEK, either: its writes fail until the next mount, and nothing else is lost.
    @Test(.timeLimit(.minutes(10))) func aFileThatNeedsAFifthDEK() throws {
        let test = try TestVolume(features: [], options: DEKReplacementTests.options())
        let file = try test.create("file")
        try file.write(Self.content)
        let other = try test.create("other")
        try other.write([1])
        FaultInjection.arm(nth: 1, of: [.fsync], fault: .errno(.io))
        #expect(throws: Errno.io) { try other.sync() }
        FaultInjection.disarm()
        var model = Self.content
        var failed = false
        for round in 0..<200 where !failed {
            let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 9000)
            do {
                try file.write(bytes, at: 100)
                model.replaceSubrange(100..<9100, with: bytes)
            } catch { failed = true }
        }
        #expect(failed)
        #expect(try file.readAll() == model)
        file.close()
        other.close()
        try test.remount()
        #expect(try test.read("file") == model)
        let again = try test.open("file")
        try again.write([9], at: 0)
        again.close()
        model[0] = 9
        #expect(try test.read("file") == model)
        #expect(test.check().findings.isEmpty)
    }
}
