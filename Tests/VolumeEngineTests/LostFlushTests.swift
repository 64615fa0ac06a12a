import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// A flush fails once: the kernel gives up the pages that it could not write, goes on showing them, and says nothing the next time. What
/// a re-encryption had done by then must not count as done.
@Suite struct LostFlushTests {
    private static let page = 4096

    private func lowerPages(_ test: TestVolume) throws -> [[UInt8]] {
        let names = try test.lowerNames().filter { !$0.hasPrefix(".") && !$0.hasPrefix("lethefs") }
        let file = try Lower.open(path: test.lower + "/" + (try #require(names.first)), flags: O_RDONLY)
        let size = Int(try Lower.stat(file).st_size)
        var bytes = [UInt8](repeating: 0, count: size)
        _ = try bytes.withUnsafeMutableBytes { buffer in
            try Lower.read(file, into: try #require(buffer.baseAddress), count: size, at: 0)
        }
        return stride(from: 0, to: size, by: Self.page).map { Array(bytes[$0..<min(size, $0 + Self.page)]) }
    }

    private func reencrypt(_ test: TestVolume, failing nth: Int) throws -> (count: UInt64?, flushes: Int) {
        let work = try #require(test.mount.keyring(.root)?.pending.first { $0.kind == .reencrypt })
        FaultInjection.arm(nth: nth, of: [.syncfs, .fsync], fault: .errno(.io))
        defer { FaultInjection.disarm() }
        let count = try? test.mount.reencrypt(
            .root, work, editing: RewrapTests.editing(test), control: SweepControl(), threads: 1)
        return (count, FaultInjection.disarm())
    }

    /// The flush of the header's new slot, and the flush of the pages.
    @Test(.timeLimit(.minutes(10)), arguments: [1, 2])
    func whatWasDoneIsDoneAgain(flush: Int) throws {
        let test = try TestVolume(features: [])
        let content = (0..<300 * Self.page).map { UInt8(truncatingIfNeeded: $0 / 11) }
        try test.write("file", content)
        _ = try test.mount.beginReencryption(
            .root, scope: nil, rate: 0, flags: [], editing: RewrapTests.editing(test))
        _ = try reencrypt(test, failing: flush)
        let first = try lowerPages(test)
        let coverage = try test.mount.coverage(.root)
        #expect(
            coverage.deks[.first]?.files == 1 || coverage.mixed == 1,
            "the old DEK went with a failed flush: \(coverage)")
        let (count, flushes) = try reencrypt(test, failing: .max)
        #expect(count == 1)
        // The header once more, and then the pages.
        #expect(flushes >= 2)
        let second = try lowerPages(test)
        #expect(first.count == second.count)
        let pages = Int(Geometry.pageCount(forSize: UInt64(content.count)))
        let same = (1..<pages).filter { first[$0] == second[$0] }
        #expect(same == [], "of \(pages) pages these were not written again")
        #expect(try test.read("file") == content)
        #expect(test.volume.isDirty)
        try test.remount()
        #expect(try test.read("file") == content)
        #expect(try test.mount.coverage(.root).deks.filter { $0.value.files > 0 }.count == 1)
        #expect(test.check().findings.isEmpty)
    }
}
