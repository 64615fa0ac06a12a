import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// `check --salvage` of files whose page trees are damaged or gone: their pages are genuine all the same.
@Suite struct PageTreeSalvageTests {
    private static let page = 4096
    private static let payload = 4064
    private static let size = 3552 + 399 * payload - 100
    private static let content = (0..<size).map { UInt8(truncatingIfNeeded: $0 / 7) }

    private struct Damaged {
        let test: TestVolume
        let lower: String
        let nodes: String
    }

    /// A volume with one file of 400 pages, of which the last were written a second time, in a later session.
    private func volume() throws -> Damaged {
        let test = try TestVolume(features: .pageTree)
        try test.write("file", Self.content.map { $0 &+ 1 })
        try test.remount()
        let file = try test.open("file")
        try file.write(Self.content)
        file.close()
        try test.remount()
        let names = try test.lowerNames().filter { !$0.hasPrefix(".") && !$0.hasPrefix("lethefs") }
        let nodes = try #require(try test.lowerNames(".lethefs/trees").first)
        return Damaged(
            test: test, lower: test.lower + "/" + (try #require(names.first)),
            nodes: test.lower + "/.lethefs/trees/" + nodes)
    }

    private func salvage(_ test: TestVolume) throws -> (report: VolumeCheck.Report, content: [UInt8]) {
        let temporary = try TemporaryDirectory()
        var options = VolumeCheck.Options()
        options.salvage = temporary["out"]
        let report = try VolumeCheck(test.volume, options: options).run()
        let file = try Lower.open(path: temporary["out/file"], flags: O_RDONLY)
        var bytes = [UInt8](repeating: 0, count: Self.size + 1)
        let count = try bytes.withUnsafeMutableBytes { buffer in
            try Lower.read(file, into: try #require(buffer.baseAddress), count: buffer.count, at: 0)
        }
        return (report, Array(bytes.prefix(count)))
    }

    private func flip(_ path: String, at offset: Int) throws {
        let file = try Lower.open(path: path, flags: O_RDWR)
        var byte: UInt8 = 0
        _ = try Lower.read(file, into: &byte, count: 1, at: UInt64(offset))
        byte ^= 0x10
        try Lower.write(file, from: &byte, count: 1, at: UInt64(offset))
    }

    @Test(.timeLimit(.minutes(10)), arguments: [false, true])
    func nodesDamagedOrGone(areGone: Bool) throws {
        let damaged = try volume()
        if areGone {
            #expect(unlink(damaged.nodes) == 0)
        } else {
            let size = Int(try Lower.stat(Lower.open(path: damaged.nodes, flags: O_RDONLY)).st_size)
            for node in stride(from: 0, to: size, by: Self.page) { try flip(damaged.nodes, at: node + 100) }
        }
        let (report, content) = try salvage(damaged.test)
        #expect(content == Self.content)
        #expect(report.salvaged == 1)
        #expect(!report.findings.isEmpty)
        for finding in report.findings {
            #expect(finding.path == "/file" && finding.object == "page tree" && finding.page != nil)
            #expect(finding.reason.hasSuffix("copied, perhaps not its newest version"), "\(finding.reason)")
        }
        // What the mount serves is as strict as before.
        #expect(throws: Errno.io) { try damaged.test.read("file") }
    }

    /// Where the page itself was changed, too, nothing of it is copied.
    @Test(.timeLimit(.minutes(10))) func aChangedPageStaysAHole() throws {
        let damaged = try volume()
        #expect(unlink(damaged.nodes) == 0)
        try flip(damaged.lower, at: 200 * Self.page + 1000)
        let (report, content) = try salvage(damaged.test)
        let start = 3552 + 199 * Self.payload
        var expected = Self.content
        for index in start..<start + Self.payload { expected[index] = 0 }
        #expect(content == expected)
        #expect(report.findings.contains { !$0.reason.contains("copied") })
    }
}
