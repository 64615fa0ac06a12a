import CLinux
import Foundation
import Storage
import Testing
import VolumeEngine
import VolumeFormat

/// A crash at each step of a truncate leaves the file between old and new, also where its last page was once the end of the file.
@Suite struct ShrinkCrashTests {
    /// Where the file ended when the page was sealed that becomes the last one; 0: the page is a hole.
    @Test(arguments: [14_236, 15_000, 15_468, 15_744, 11_680])
    func lastPageWasTheEndOnce(first: Int) throws {
        let start = (0..<first).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) }
        let rest = [UInt8](repeating: 9, count: 60_014 - 15_744)
        let old = start + [UInt8](repeating: 0, count: 15_744 - first) + rest
        let new = Array(old[..<15_468])
        var nth = 1
        while true {
            let test = try TestVolume(inMemory: true)
            let file = try test.create("file")
            try file.write(start)
            try file.sync()
            try file.write(rest, at: 15_744)
            try file.sync()
            FaultInjection.arm(nth: nth, of: Set(LowerCall.allCases), fault: .errno(.io), repeats: true)
            let failed: Bool
            do {
                try file.truncate(to: 15_468)
                failed = false
            } catch { failed = true }
            FaultInjection.disarm()
            try test.crash()
            let got = try test.read("file")
            let isBetween = (new.count...old.count).contains(got.count)
            #expect(isBetween, "\(got.count) bytes after a crash at call \(nth)")
            let isIntact = got.prefix(new.count).elementsEqual(new)
            #expect(isIntact, "bytes before the new end differ after a crash at call \(nth)")
            for (index, byte) in got.enumerated().dropFirst(new.count) where byte != old[index] && byte != 0 {
                Issue.record("byte \(index) is \(byte) after a crash at call \(nth)")
                break
            }
            #expect(test.check().findings == [])
            if !failed {
                let isNew = got == new
                #expect(isNew, "the truncate that succeeded")
                break
            }
            nth += 1
        }
        #expect(nth > 3)
    }

    /// Header and length of a truncated file were on disk when the power went, and the page in which it ends was not: what was cut off does
    /// not come back when the file grows, whoever opened it first.
    @Test(arguments: [false, true]) func theLastPageWasNotStored(opensForReading: Bool) throws {
        let test = try TestVolume(inMemory: true, features: [])
        let file = try test.create("file")
        try file.write([UInt8](repeating: 7, count: 10_000))
        try file.sync()
        let name = try #require(test.lowerNames().first { !$0.contains(".") })
        let path = test.lower + "/" + name
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        try file.truncate(to: 5000)
        file.close()
        let handle = try Foundation.FileHandle(forUpdating: URL(fileURLWithPath: path))
        try handle.seek(toOffset: 4096)
        try handle.write(contentsOf: before[4096..<8192])
        try handle.close()
        try test.crash()
        if opensForReading { try test.open("file", forWriting: false).close() }
        let again = try test.open("file")
        #expect(try again.readAll() == [UInt8](repeating: 7, count: 5000))
        again.close()
        let grown = try test.open("file")
        try grown.truncate(to: 9000)
        #expect(try grown.readAll() == [UInt8](repeating: 7, count: 5000) + [UInt8](repeating: 0, count: 4000))
        grown.close()
        #expect(test.check().findings == [])
    }

    /// A truncation is not stored yet when the file is re-encrypted, no flush succeeds, and the power goes: what was cut off can be opened.
    @Test func reencryptedBeforeItWasStored() throws {
        let test = try TestVolume(features: [])
        try test.write("file", [UInt8](repeating: 7, count: 10_000))
        let name = try #require(test.lowerNames().first { !$0.contains(".") })
        let before = try Data(contentsOf: URL(fileURLWithPath: test.lower + "/" + name))
        let file = try test.open("file")
        try file.truncate(to: 3000)
        file.close()
        let editing = RewrapTests.editing(test)
        let work = try test.mount.beginReencryption(.root, scope: nil, rate: 0, flags: [], editing: editing)
        FaultInjection.arm(nth: 1, of: [.fsync, .fdatasync, .syncfs], fault: .errno(.io), repeats: true)
        _ = try? test.mount.reencrypt(.root, work, editing: editing, control: SweepControl(), threads: 1)
        FaultInjection.disarm()
        let handle = try Foundation.FileHandle(forUpdating: URL(fileURLWithPath: test.lower + "/" + name))
        try handle.seek(toOffset: 4096)
        try handle.write(contentsOf: before[4096...])
        try handle.close()
        try test.crash()
        #expect(try test.read("file").prefix(3000).elementsEqual([UInt8](repeating: 7, count: 3000)))
        #expect(test.check().findings == [])
    }
}
