import Foundation
import Secrets
import Testing

/// What the kernel says about the pages that keys lie in.
@Suite struct LockedMemoryTests {
    /// /proc/self/smaps of the mapping that holds an address.
    private struct Mapping {
        var fields: [Substring: Substring] = [:]

        var flags: Set<Substring> { Set((fields["VmFlags"] ?? "").split(separator: " ")) }
        var lockedKilobytes: Int { Int((fields["Locked"] ?? "").split(separator: " ").first ?? "") ?? 0 }

        init(containing address: UInt) throws {
            var inside = false
            // Files in /proc have no size, so they are read to the end.
            let file = try #require(FileHandle(forReadingAtPath: "/proc/self/smaps"))
            let text = String(decoding: try file.readToEnd() ?? Data(), as: UTF8.self)
            for line in text.split(separator: "\n") {
                let words = line.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true)
                let bounds = words[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
                if bounds.count == 2 {
                    inside = bounds[0] <= address && address < bounds[1]
                } else if inside, words.count == 2, words[0].hasSuffix(":") {
                    fields[words[0].dropLast()] = words[1]
                }
            }
        }
    }

    private func address(_ key: borrowing SecretKey) -> UInt { key.withBytes { UInt(bitPattern: $0.baseAddress) } }

    @Test func keysAreLockedAndNotDumped() throws {
        try #require(SecretArena.shared.unlockedChunks == 0, "RLIMIT_MEMLOCK is too small for the tests")
        let key = SecretKey { _ in }
        let mapping = try Mapping(containing: address(key))
        #expect(mapping.flags.isSuperset(of: ["lo", "dd", "wf"]), "\(mapping.flags)")
        #expect(mapping.lockedKilobytes > 0)
        #expect(address(key) % UInt(SecretKey.size) == 0)
    }

    @Test(arguments: [0, 1, 4095, 4096, 4097, 100_000])
    func buffersAreLockedAndNotDumped(count: Int) throws {
        var buffer = SecretBuffer(count: count)
        buffer.withMutableBytes { for index in $0.indices { $0[index] = 0xAA } }
        let start = buffer.withBytes { UInt(bitPattern: $0.baseAddress) }
        let mapping = try Mapping(containing: start)
        #expect(mapping.flags.isSuperset(of: ["lo", "dd", "wf"]), "\(mapping.flags)")
        #expect(buffer.count == count)
    }

    /// fork(2) is not imported into Swift: only async-signal-safe things happen in the child.
    @Test func aForkedChildSeesZeros() throws {
        let handle = try #require(dlsym(nil, "fork"))
        let fork = unsafeBitCast(handle, to: (@convention(c) () -> pid_t).self)
        let key = SecretKey { for index in $0.indices { $0[index] = 0x77 } }
        let start = key.withBytes { $0.baseAddress }
        let child = fork()
        if child == 0 {
            var sum: UInt8 = 0
            for index in 0..<SecretKey.size { sum |= start?.load(fromByteOffset: index, as: UInt8.self) ?? 0xFF }
            _exit(sum == 0 ? 0 : 1)
        }
        try #require(child > 0)
        var status: Int32 = -1
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        #expect(status == 0)
        #expect(key.withBytes { $0.allSatisfy { $0 == 0x77 } })
    }

    @Test func truncationWipesWhatFallsAway() {
        var buffer = SecretBuffer(count: 100)
        buffer.withMutableBytes { for index in $0.indices { $0[index] = 0xAA } }
        let start = buffer.withBytes { $0.baseAddress }
        buffer.truncate(to: 40)
        #expect(buffer.count == 40)
        let all = UnsafeRawBufferPointer(start: start, count: 100)
        #expect(all.prefix(40).allSatisfy { $0 == 0xAA } && all.dropFirst(40).allSatisfy { $0 == 0 })
    }
}
