import Storage
import TestSupport
import Testing

@Suite struct AtomicFileTests {
    private let temporary: TemporaryDirectory
    private let directory: Descriptor

    init() throws {
        temporary = try TemporaryDirectory()
        directory = try Lower.open(path: temporary.path, flags: OpenFlags.readDirectory)
    }

    private func read(limit: Int = 1 << 20) throws -> [UInt8] { try AtomicFile.read(directory, "file", limit: limit) }

    @Test(arguments: [0, 1, 4096, 100_000])
    func replaces(count: Int) throws {
        var generator = SeededGenerator(seed: UInt64(count))
        for _ in 0..<3 {
            let bytes = generator.bytes(count)
            try AtomicFile.replace(directory, "file", with: bytes)
            #expect(try read() == bytes)
        }
        #expect(try Lower.stat(directory, "file").st_mode & 0o777 == 0o600)
        #expect(throws: Errno.noEntry) { try Lower.stat(directory, "file.new") }
    }

    @Test func limits() throws {
        try AtomicFile.replace(directory, "file", with: [UInt8](repeating: 1, count: 100))
        #expect(try read(limit: 100).count == 100)
        #expect(throws: Errno.fileTooBig) { try read(limit: 99) }
        #expect(throws: Errno.noEntry) { try AtomicFile.read(directory, "none", limit: 10) }
        try Lower.makeDirectory(directory, "directory", mode: 0o700)
        #expect(throws: Errno.invalid) { try AtomicFile.read(directory, "directory", limit: 10) }
        try Lower.symlink(target: "file", directory, "link")
        #expect(throws: Errno.loop) { try AtomicFile.read(directory, "link", limit: 100) }
        // A FIFO would block its reader for ever.
        try Lower.makeNode(directory, "fifo", mode: 0o010600, device: 0)
    }

    /// Another process's crash left a half of a new file, even one with more than one name.
    @Test func aCrashsLeftoverIsReplaced() throws {
        try AtomicFile.replace(directory, "file", with: [1])
        let left = try Lower.open(directory, "file.new", flags: OpenFlags.create, mode: 0o000)
        try Lower.write(left, from: [9, 9, 9] as [UInt8], count: 3, at: 0)
        try Lower.link(directory, "file.new", directory, "elsewhere")
        #expect(try read() == [1])
        try AtomicFile.replace(directory, "file", with: [2])
        #expect(try read() == [2])
        let elsewhere = try AtomicFile.read(directory, "elsewhere", limit: 10)
        #expect(elsewhere == [9, 9, 9])
    }

    /// Whichever call fails, and however: the file holds the old bytes or the new ones, and the next try succeeds.
    @Test(arguments: [FaultInjection.Fault.errno(.noSpace), .errno(.io)], [false, true])
    func everyFailureLeavesOldOrNew(fault: FaultInjection.Fault, repeats: Bool) throws {
        let old = [UInt8](repeating: 1, count: 5000)
        let new = [UInt8](repeating: 2, count: 6000)
        for nth in 1... {
            try AtomicFile.replace(directory, "file", with: old)
            FaultInjection.arm(nth: nth, of: Set(LowerCall.allCases), fault: fault, repeats: repeats)
            let failed = Result { () throws(Errno) in try AtomicFile.replace(directory, "file", with: new) }
            let calls = FaultInjection.disarm()
            let now = try read()
            #expect(now == old || now == new)
            if case .success = failed {
                #expect(now == new)
                // The first unlink fails where there is nothing to unlink, and may fail so.
                if calls < nth { break }
            }
        }
        try AtomicFile.replace(directory, "file", with: new)
        #expect(try read() == new)
    }
}
