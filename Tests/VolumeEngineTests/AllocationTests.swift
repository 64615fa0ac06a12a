import AllocationCounter
import CLinux
import Storage
import Testing
import VolumeEngine

/// Blocks from the heap that each operation takes in the engine, once what it needs is warm: as with the lower calls (`CostTests`), more of
/// them is a slower file system. libfuse takes one for each request beside them.
@Suite struct AllocationTests {
    /// The least of several turns: now and then an array grows, or a pool is filled.
    private func blocks(_ body: () throws -> Void) rethrows -> Int {
        var least = Int.max
        for _ in 0..<20 {
            let before = allocation_count()
            try body()
            least = min(least, allocation_count() - before)
        }
        return least
    }

    private static let canCount = allocation_count() >= 0

    @Test(.enabled(if: canCount)) func counts() {
        #expect(blocks { withExtendedLifetime([UInt8](repeating: 1, count: 1000)) {} } == 1)
    }

    @Test(.enabled(if: canCount)) func names() throws {
        let test = try TestVolume(inMemory: true, features: [])
        try test.write("file", [UInt8](repeating: 7, count: 10_000))
        let inode = try test.lookUp("file").inode
        let (volume, top, name, absent) = (test.volume, test.top, Array("file".utf8), Array("absent".utf8))
        // Known to the kernel, as nearly all are that are asked for again.
        let found = [
            "lookup": try blocks { _ = try name.withUnsafeBytes { try volume.lookUp(top, $0) } },
            "absent": blocks { absent.withUnsafeBytes { name in do { _ = try volume.lookUp(top, name) } catch {} } },
            "getattr": try blocks { _ = try volume.attributes(inode) },
        ]
        #expect(found == ["lookup": 0, "absent": 2, "getattr": 0])
    }

    @Test(.enabled(if: canCount)) func content() throws {
        let test = try TestVolume(inMemory: true, features: [])
        try test.write("file", [UInt8](repeating: 7, count: 2 << 20))
        let (file, volume) = (try test.open("file"), test.volume)
        let buffer = volume.buffers.take()
        defer { volume.buffers.give(buffer) }
        func read(_ count: Int) throws { _ = try file.content.read(at: 4096, count: count, buffer) }
        let data = [UInt8](repeating: 3, count: 1 << 20)
        func write(_ count: Int) throws {
            try data.withUnsafeBytes { data in
                try file.content.write(UnsafeRawBufferPointer(rebasing: data[..<count]), at: 4096, buffer)
            }
        }
        let found = [
            "read 4 KiB": try blocks { try read(4096) }, "read 1 MiB": try blocks { try read(1 << 20) },
            "write 4 KiB": try blocks { try write(4096) }, "write 1 MiB": try blocks { try write(1 << 20) },
        ]
        #expect(found == ["read 4 KiB": 0, "read 1 MiB": 0, "write 4 KiB": 0, "write 1 MiB": 0])
        file.close()
    }

    @Test(.enabled(if: canCount)) func openingAndCreating() throws {
        let test = try TestVolume(inMemory: true, features: [])
        try test.write("file", [1])
        let (inode, volume, top) = (try test.lookUp("file").inode, test.volume, test.top)
        let names = (0..<20).map { Array("new-\($0)".utf8) }
        var number = 0
        let found = [
            "open and close": try blocks { volume.closeContent(try volume.openContent(inode, forWriting: false)) },
            "create and close": try blocks {
                let made = try names[number].withUnsafeBytes { name in
                    try volume.create(top, name, mode: 0o644, flags: O_EXCL | O_RDWR, TestVolume.root)
                }
                volume.closeContent(made.content)
                number += 1
            },
        ]
        // Most of them are OpenSSL's, for a key derivation, a key wrap and a MAC.
        for (operation, count) in found { #expect(count <= 85, "\(operation)") }
    }
}
