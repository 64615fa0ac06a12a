import CLinux
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
}
