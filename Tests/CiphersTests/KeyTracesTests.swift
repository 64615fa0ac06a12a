import CLinux
import Ciphers
import Secrets
import TestSupport
import Testing

/// Searches this process's memory for key bytes after their owner has let them go.
@Suite(.serialized) struct KeyTracesTests {
    /// Key bytes that the searcher itself must not be found by: kept inverted.
    private struct Needle {
        let inverted: [UInt8]
        init(_ key: borrowing SecretKey) { inverted = key.withBytes { $0.map { ~$0 } } }

        func isAt(_ position: Int, in bytes: UnsafeRawBufferPointer) -> Bool {
            for index in inverted.indices where bytes[position + index] != ~inverted[index] { return false }
            return true
        }
    }

    /// How often the key stands in writable memory.
    private func occurrences(_ needle: Needle) throws -> Int {
        let memory = try #require(
            linux_open("/proc/self/mem", O_RDONLY, 0) >= 0 ? linux_open("/proc/self/mem", O_RDONLY, 0) : nil)
        defer { close(memory) }
        let maps = try readText("/proc/self/maps")
        let size = 1 << 20
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
        defer { chunk.deallocate() }
        var found = 0
        for line in maps.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count > 1, fields[1].hasPrefix("rw") else { continue }
            let ends = fields[0].split(separator: "-").compactMap { UInt(String($0), radix: 16) }
            guard ends.count == 2 else { continue }
            var at = ends[0]
            while at < ends[1] {
                let count = pread(
                    memory, chunk.baseAddress, min(size, Int(ends[1] - at)), off_t(at))
                guard count > SecretKey.size else { break }
                let own = UInt(bitPattern: chunk.baseAddress)
                // The copy that the search itself makes does not count.
                if !(own..<own + UInt(size)).overlaps(at..<at + UInt(count)) {
                    let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(chunk)[..<count])
                    for position in 0...(count - SecretKey.size) where needle.isAt(position, in: bytes) { found += 1 }
                }
                at += UInt(count) - (count == size ? UInt(SecretKey.size) : 0)
                if count < size { break }
            }
        }
        linux_explicit_bzero(chunk.baseAddress, size)
        return found
    }

    private func readText(_ path: String) throws -> String {
        let file = linux_open(path, O_RDONLY, 0)
        try #require(file >= 0)
        defer { close(file) }
        var text: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(file, &part, part.count)
            if count <= 0 { break }
            text += part[..<count]
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// Does with a key all that the file system does with its keys.
    @inline(never)
    private func use() throws -> (needle: Needle, whileHeld: Int) {
        let pool = try AEADPool(slots: 2)
        let kek = try RandomBytes.key()
        let wrapped = try KeyWrap.wrap(try RandomBytes.key(), under: kek)
        let wrappedKey = WrappedBytes(wrapped)
        let dek = try wrappedKey.unwrap(under: kek)
        let needle = Needle(dek)
        _ = try HKDF.derive(from: dek, salt: [1], info: [2])
        _ = try DerivedKeys(4, from: dek, salt: (1, 2), info: "test", version: 1).key(0)
        _ = try HMACSHA256.code(key: dek, message: [1, 2, 3])
        let sealing = AEADKey(dek.copy())
        _ = try pool.withContext(for: sealing) { cipher in
            try cipher.seal(
                under: sealing, iv: [UInt8](repeating: 0, count: 12), aad: [], [UInt8](repeating: 7, count: 4064))
        }
        pool.wipe()
        return (needle, try occurrences(needle))
    }

    @Test func aKeyThatWasUsedAndLetGoIsNowhere() throws {
        let (needle, whileHeld) = try use()
        #expect(whileHeld > 0, "the search finds nothing at all")
        #expect(try occurrences(needle) == 0)
    }
}

/// A wrapped key, to be unwrapped into a key that cannot be copied out of a closure otherwise.
private struct WrappedBytes {
    let bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func unwrap(under kek: borrowing SecretKey) throws(CipherError) -> SecretKey {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { copy.deallocate() }
        copy.copyBytes(from: bytes)
        return try KeyWrap.unwrap(UnsafeRawBufferPointer(copy), under: kek)
    }
}
