import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// After a clean unmount the lower files are as they were, or reading says EIO.
@Suite struct StrictnessTests {
    private static let size = 20_000

    /// A closed volume with two like files; their lower paths by size order of creation.
    private func makeVolume(_ bytes: [UInt8]) throws -> (test: TestVolume, first: String, second: String) {
        let test = try TestVolume()
        var paths: [String] = []
        for name: Name in ["first", "second"] {
            let before = Set(try test.lowerNames())
            try test.write(name, bytes)
            let made = Set(try test.lowerNames()).subtracting(before)
            paths.append(test.lower + "/" + (try #require(made.first)))
        }
        try test.close()
        return (test, paths[0], paths[1])
    }

    private func contents() -> [UInt8] {
        var generator = SeededGenerator(seed: 7)
        return generator.bytes(Self.size)
    }

    /// What reading the first file after a new mount gives.
    private func reread(_ test: TestVolume) throws -> Result<[UInt8], Errno> {
        try test.open()
        do { return .success(try test.read("first")) } catch let error as Errno { return .failure(error) }
    }

    private func patch(_ path: String, at offset: Int, _ bytes: [UInt8]) throws {
        let file = try Lower.open(path: path, flags: O_RDWR)
        try bytes.withUnsafeBytes { raw in
            if let start = raw.baseAddress { try Lower.write(file, from: start, count: raw.count, at: UInt64(offset)) }
        }
    }

    private func bytes(_ path: String, at offset: Int, _ count: Int) throws -> [UInt8] {
        let file = try Lower.open(path: path, flags: O_RDONLY)
        var bytes = [UInt8](repeating: 0, count: count)
        let got = try Lower.read(file, into: &bytes, count: count, at: UInt64(offset))
        try #require(got == count)
        return bytes
    }

    @Test(arguments: [0, 1, 511, 512, 513, 4095, 4096, 4097, 8192, 20_480, 24_000, 40_000, -1, -4096, 1, 100, 4096])
    func changedLengths(length: Int) throws {
        let (test, first, _) = try makeVolume(contents())
        let file = try Lower.open(path: first, flags: O_RDWR)
        let now = Int(try Lower.stat(file).st_size)
        let new = length < 0 ? now + length : length
        try Lower.truncate(file, to: UInt64(new))
        #expect(try reread(test) == .failure(.io))
        #expect(!test.takeDamages().isEmpty)
        #expect(try test.read("second") == contents())
        #expect(test.check().findings.isEmpty == false)
    }

    @Test(arguments: [1, 32, 480, 4096, 100_000])
    func extended(by count: Int) throws {
        let (test, first, _) = try makeVolume(contents())
        let file = try Lower.open(path: first, flags: O_RDWR)
        try Lower.truncate(file, to: UInt64(try Lower.stat(file).st_size) + UInt64(count))
        #expect(try reread(test) == .failure(.io))
    }

    @Test(arguments: 0..<5)
    func zeroedPages(page: Int) throws {
        let (test, first, _) = try makeVolume(contents())
        let skip = page == 0 ? 512 : 0
        try patch(first, at: page * 4096 + skip, [UInt8](repeating: 0, count: 4096 - skip))
        #expect(try reread(test) == .failure(.io))
        #expect(test.check().findings.map(\.page) == [UInt64(page)])
    }

    @Test(arguments: [(1, 2), (3, 1), (2, 3)])
    func pagesMovedWithinAFile(from: Int, to: Int) throws {
        let (test, first, _) = try makeVolume(contents())
        try patch(first, at: to * 4096, try bytes(first, at: from * 4096, 4096))
        #expect(try reread(test) == .failure(.io))
        #expect(test.check().findings.map(\.page) == [UInt64(to)])
    }

    @Test(arguments: 0..<5)
    func pagesMovedBetweenFiles(page: Int) throws {
        let (test, first, second) = try makeVolume(contents())
        let skip = page == 0 ? 512 : 0
        try patch(first, at: page * 4096 + skip, try bytes(second, at: page * 4096 + skip, 4096 - skip))
        #expect(try reread(test) == .failure(.io))
    }

    @Test func headersMovedBetweenFiles() throws {
        let (test, first, second) = try makeVolume(contents())
        try patch(first, at: 0, try bytes(second, at: 0, 512))
        #expect(try reread(test) == .failure(.io))
    }

    /// Every byte of the header, and of each leader, and a byte here and there of each payload.
    @Test func everyKindOfByte() throws {
        let (test, first, _) = try makeVolume(contents())
        let leaders = (0..<5).flatMap { page in (0..<32).map { page * 4096 + (page == 0 ? 512 : 0) + $0 } }
        let payload = (0..<5).flatMap { page in [544, 1000, 4095].map { page * 4096 + $0 } }
        for offset in Array(0..<512) + leaders + payload {
            let old = try bytes(first, at: offset, 1)
            try patch(first, at: offset, [old[0] ^ 0x40])
            #expect(try reread(test) == .failure(.io), "byte \(offset)")
            try test.close()
            try patch(first, at: offset, old)
        }
        #expect(try reread(test) == .success(contents()))
    }

    /// An older header or page of the same file is authentic by itself; with the other's it does not fit.
    @Test func olderStates() throws {
        let (test, first, _) = try makeVolume(contents())
        let oldHeader = try bytes(first, at: 0, 512)
        try test.open()
        let file = try test.open("first")
        try file.truncate(to: 6000)
        file.close()
        try test.close()
        try patch(first, at: 0, oldHeader)
        #expect(try reread(test) == .failure(.io))
    }

    /// Where a crash explains it, the same states are accepted: a header that lags behind the length.
    @Test func afterACrashLengthsMayLag() throws {
        let test = try TestVolume()
        let file = try test.create("first")
        try file.write(contents())
        try file.sync()
        try test.crash()
        #expect(test.volume.isAfterCrash)
        #expect(try test.read("first") == contents())
        #expect(test.check().findings == [])
    }
}
