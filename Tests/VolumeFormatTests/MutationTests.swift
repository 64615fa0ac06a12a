import TestSupport
import Testing
import VolumeFormat

/// Changed bytes either are refused with a `FormatError`, or mean something that encodes to exactly them.
@Suite struct MutationTests {
    static let rounds = 40_000

    private func mutate(_ bytes: [UInt8], _ generator: inout SeededGenerator) -> [UInt8] {
        var bytes = bytes
        for _ in 0...generator.below(3) {
            let index = bytes.isEmpty ? 0 : generator.below(bytes.count)
            switch generator.below(7) {
            case 0 where !bytes.isEmpty: bytes[index] ^= 1 << UInt8(generator.below(8))
            case 1 where !bytes.isEmpty: bytes[index] = UInt8(generator.below(256))
            case 2 where !bytes.isEmpty: bytes[index] = [0, 1, 0x7F, 0x80, 0xFF][generator.below(5)]
            case 3: bytes.removeLast(generator.below(bytes.count + 1))
            case 4: bytes.append(contentsOf: generator.bytes(generator.below(40)))
            case 5: bytes.insert(contentsOf: generator.bytes(generator.below(4)), at: index)
            default:
                let end = min(bytes.count, index + generator.below(8))
                bytes.removeSubrange(index..<end)
            }
        }
        return bytes
    }

    @Test(arguments: FormatObject.allCases)
    func parsesExactlyOrRefuses(object: FormatObject) {
        var generator = SeededGenerator(seed: 3)
        let sample = object.sample
        var parsed = 0
        for _ in 0..<Self.rounds {
            let bytes = mutate(sample, &generator)
            do throws(FormatError) {
                let again = try object.parseAndEncode(bytes)
                parsed += 1
                if again != bytes { Issue.record("encodes to other bytes: \(Hex.encode(bytes))") }
            } catch {}
        }
        #expect(parsed > 0 && parsed < Self.rounds)
    }

    @Test(arguments: FormatObject.allCases)
    func randomBytes(object: FormatObject) throws {
        var generator = SeededGenerator(seed: 4)
        for _ in 0..<10_000 {
            // With the right beginning it gets further.
            let bytes = object.sample.prefix(generator.below(24)) + generator.bytes(generator.below(700))
            if let again = try? object.parseAndEncode(Array(bytes)) { #expect(again == Array(bytes)) }
        }
    }

    /// Every single-bit change of every sample.
    @Test(arguments: FormatObject.allCases)
    func everyBit(object: FormatObject) {
        let sample = object.sample
        for bit in 0..<(sample.count * 8) {
            var bytes = sample
            bytes[bit / 8] ^= 1 << (bit % 8)
            if let again = try? object.parseAndEncode(bytes) { #expect(again == bytes) }
        }
    }

    @Test(arguments: FormatObject.allCases)
    func everyTruncation(object: FormatObject) throws {
        let sample = object.sample
        for count in 0..<sample.count {
            if let again = try? object.parseAndEncode(Array(sample.prefix(count))) {
                #expect(again.count == count)
            }
        }
        let isOpenEnded: Set<FormatObject> = [.sealedBlob, .xattr, .sealedFile, .places]
        guard !isOpenEnded.contains(object) else { return }
        for count in 0..<sample.count { #expect(object.code(Array(sample.prefix(count))) != nil) }
        #expect(object.code(sample + [0]) != nil)
    }
}
