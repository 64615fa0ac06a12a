import Ciphers
import Foundation
import Secrets
import Synchronization
import TestSupport
import Testing

@Suite struct AEADPoolTests {
    /// Keys that threads share.
    private final class Keys: Sendable {
        let first: AEADKey
        let second: AEADKey
        let third: AEADKey
        init() throws {
            first = AEADKey(try RandomBytes.key())
            second = AEADKey(try RandomBytes.key())
            third = AEADKey(try RandomBytes.key())
        }
        func with<R>(_ index: Int, _ body: (borrowing AEADKey) throws -> R) throws -> R {
            switch index % 3 {
            case 0: try body(first)
            case 1: try body(second)
            default: try body(third)
            }
        }
    }

    /// Threads that seal and open under the same few keys, with fewer contexts than threads, while another one wipes.
    @Test(arguments: [1, 2, 16])
    func eightThreads(slots: Int) throws {
        let pool = try AEADPool(slots: slots)
        let keys = try Keys()
        let failures = Atomic<Int>(0)
        let done = Atomic<Int>(0)
        DispatchQueue.concurrentPerform(iterations: 9) { thread in
            guard thread < 8 else {
                while done.load(ordering: .relaxed) < 1000 { pool.wipe() }
                return
            }
            var generator = SeededGenerator(seed: UInt64(thread))
            for round in 0..<1000 {
                do {
                    let (iv, plaintext) = (generator.bytes(12), generator.bytes(generator.below(300)))
                    let opened = try keys.with(generator.below(3)) { key in
                        let sealed = try pool.withContext(for: key) {
                            try $0.seal(under: key, iv: iv, aad: [UInt8(round & 255)], plaintext)
                        }
                        return try pool.withContext(for: key) {
                            try $0.open(
                                under: key, iv: iv, aad: [UInt8(round & 255)], sealed.ciphertext, tag: sealed.tag)
                        }
                    }
                    if !opened.isAuthentic || opened.output != plaintext { failures.add(1, ordering: .relaxed) }
                } catch { failures.add(1, ordering: .relaxed) }
                done.add(1, ordering: .relaxed)
            }
        }
        #expect(failures.load(ordering: .relaxed) == 0)
    }

    @Test func wipeLeavesNoKeyInAnyContext() throws {
        let pool = try AEADPool(slots: 4)
        let key = AEADKey(try RandomBytes.key())
        try pool.withContext(for: key) { try $0.loadForSealing(key) }
        pool.wipe()
        var tag = [UInt8](repeating: 0, count: 16)
        var output: [UInt8] = [0]
        let iv = [UInt8](repeating: 0, count: 12)
        let empty = UnsafeRawBufferPointer(start: nil, count: 0)
        #expect(throws: CipherError.self) {
            try pool.withContext(for: key) {
                try $0.seal(iv: iv, aad: empty, plaintext: empty, ciphertext: &output, tag: &tag)
            }
        }
    }
}
