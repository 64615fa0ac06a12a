import Storage
import TestSupport
import Testing

/// Calls on real files, with every fault of the seam.
@Suite struct LowerTests {
    private let temporary: TemporaryDirectory
    private let directory: Descriptor

    init() throws {
        temporary = try TemporaryDirectory()
        directory = try Lower.open(path: temporary.path, flags: OpenFlags.readDirectory)
    }

    private func makeFile(_ bytes: [UInt8]) throws -> Descriptor {
        let file = try Lower.open(directory, "file", flags: OpenFlags.create, mode: 0o600)
        try bytes.withUnsafeBytes { buffer in
            if let start = buffer.baseAddress { try Lower.write(file, from: start, count: buffer.count, at: 0) }
        }
        return file
    }

    private func read(_ file: Descriptor, _ count: Int, at offset: UInt64 = 0) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        let got = try Lower.read(file, into: &bytes, count: count, at: offset)
        return Array(bytes[..<got])
    }

    /// However short the kernel's transfers are, all bytes arrive.
    @Test(arguments: [1, 2, 3, 4095, 4096, 4097, 100_000])
    func shortTransfersAreContinued(count: Int) throws {
        var generator = SeededGenerator(seed: UInt64(count))
        let bytes = generator.bytes(count)
        FaultInjection.arm(nth: 1, of: [.pwrite], fault: .short, repeats: true)
        let file = try makeFile(bytes)
        #expect(FaultInjection.disarm() >= 1)
        #expect(try read(file, count) == bytes)
        FaultInjection.arm(nth: 1, of: [.pread], fault: .short, repeats: true)
        let again = try read(file, count + 10)
        #expect(FaultInjection.disarm() > (count > 1 ? 1 : 0))
        #expect(again == bytes)
    }

    @Test func readsEndAtTheEnd() throws {
        let file = try makeFile([1, 2, 3])
        #expect(try read(file, 10) == [1, 2, 3])
        #expect(try read(file, 10, at: 2) == [3])
        #expect(try read(file, 10, at: 3) == [])
        #expect(try read(file, 10, at: 1 << 40) == [])
        #expect(try Lower.readValue(file, at: 0, initial: UInt32(0)) == 0x0003_0201)
        #expect(try Lower.readValue(file, at: 100, initial: UInt32(7)) == 7)
    }

    /// What a real call answers is what is thrown.
    @Test func errnoOfRealFailures() throws {
        _ = try makeFile([])
        #expect(throws: Errno.noEntry) { try Lower.stat(directory, "none") }
        #expect(throws: Errno.noEntry) { try Lower.unlink(directory, "none") }
        #expect(throws: Errno.exists) {
            try Lower.open(directory, "file", flags: OpenFlags.createNew, mode: 0o600)
        }
        #expect(throws: Errno.exists) { try Lower.makeDirectory(directory, "file", mode: 0o700) }
        #expect(throws: Errno.notDirectory) { try Lower.open(directory, "file", flags: OpenFlags.readDirectory) }
        #expect(throws: Errno.notDirectory) { try Lower.unlink(directory, "file", isDirectory: true) }
        #expect(throws: Errno.invalid) { try Lower.readLink(directory, "file") }
        try Lower.symlink(target: "file", directory, "link")
        #expect(throws: Errno.loop) { try Lower.open(directory, "link", flags: 0) }
        #expect(try Lower.readLink(directory, "link") == Array("file".utf8))
        #expect(throws: Errno.noData) { try Lower.getAttribute(path: temporary["file"], "user.none") }
        #expect(throws: Errno.nameTooLong) { try Lower.stat(directory, String(repeating: "n", count: 256)) }
        #expect(throws: Errno.badDescriptor) {
            try Lower.truncate(try Lower.open(directory, "file", flags: OpenFlags.path), to: 1)
        }
    }

    @Test func attributes() throws {
        _ = try makeFile([])
        let path = temporary["file"]
        #expect(try Lower.listAttributes(path: path) == [])
        var names: Set<[UInt8]> = []
        for index in 0..<40 {
            let value = [UInt8](repeating: UInt8(index), count: index)
            try value.withUnsafeBytes { try Lower.setAttribute(path: path, "user.test\(index)", $0, flags: 0) }
            #expect(try Lower.getAttribute(path: path, "user.test\(index)") == value)
            names.insert(Array("user.test\(index)".utf8))
        }
        #expect(Set(try Lower.listAttributes(path: path)) == names)
        try Lower.removeAttribute(path: path, "user.test7")
        #expect(try Lower.listAttributes(path: path).count == 39)
    }

    @Test func aDescriptorClosesWithItsLastReference() throws {
        var first: Descriptor? = try makeFile([])
        let raw = try #require(first).raw
        let second = first
        first = nil
        #expect(try Lower.stat(try #require(second)).st_size == 0)
        #expect(second?.procPath == "/proc/self/fd/\(raw)")
    }
}
