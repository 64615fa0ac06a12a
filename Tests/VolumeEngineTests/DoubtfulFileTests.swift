import CLinux
import Foundation
import Storage
import Testing
import VolumeEngine
import VolumeFormat

/// Files that a crash or a failed call left in doubt, as programs use them again.
@Suite struct DoubtfulFileTests {
    private func lowerPath(_ test: TestVolume) throws -> String {
        test.lower + "/" + (try #require(test.lowerNames().first { !$0.contains(".") }))
    }

    /// Blocks that are set aside stay so, although what a write that failed may have left behind the end is cut off.
    @Test(arguments: [AllocateMode.keepSize, []]) func allocated(mode: AllocateMode) throws {
        let test = try TestVolume(inMemory: true, features: [])
        let file = try test.create("file")
        try file.write([UInt8](repeating: 7, count: 10_000))
        // From here on the header says "open": it is the page that cannot be stored.
        try file.write([7], at: 100)
        FaultInjection.arm(nth: 1, of: [.pwrite, .ftruncate], fault: .errno(.io), repeats: true)
        #expect(throws: Errno.io) { try file.write([1, 2, 3], at: 10_000) }
        FaultInjection.disarm()
        try file.allocate(mode, at: 0, count: 400_000)
        try file.write([8], at: 100)
        var info = stat()
        #expect(stat(try lowerPath(test), &info) == 0)
        #expect(info.st_blocks * 512 >= 400_000)
        file.close()
    }

    /// A header of zeros, of a file that could only be read when it was opened first: none of the pages that were sealed under the DEK that
    /// is gone are left when it is written to.
    @Test func headerOfZeros() throws {
        var wasReadOnly = false
        for nth in 1...4 {
            let test = try TestVolume(inMemory: true, features: [])
            try test.write("file", [UInt8](repeating: 7, count: 20_000))
            let handle = try Foundation.FileHandle(forUpdating: URL(fileURLWithPath: try lowerPath(test)))
            try handle.write(contentsOf: Data(count: 512))
            try handle.close()
            try test.crash()
            let inode = try test.lookUp("file").inode
            FaultInjection.arm(nth: nth, of: [.openat], fault: .errno(.perm))
            let reader = try? test.volume.openContent(inode, forWriting: false)
            FaultInjection.disarm()
            guard let reader else { continue }
            wasReadOnly = true
            let writer = try test.open("file")
            try writer.write([UInt8](repeating: 1, count: 3000))
            try writer.truncate(to: 15_000)
            let got = try? writer.readAll()
            #expect(got == [UInt8](repeating: 1, count: 3000) + [UInt8](repeating: 0, count: 12_000), "call \(nth)")
            writer.close()
            test.volume.closeContent(reader)
            #expect(test.check().findings.isEmpty, "call \(nth)")
        }
        #expect(wasReadOnly)
    }
}
