import Foundation
import FuzzTargets
import TestSupport
import Testing

/// What the fuzzer has found worth keeping is read again in each run: `Tests/fuzz/run` makes the corpora.
@Suite struct CorpusTests {
    private static let corpus = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "fuzz/corpus")

    private static func inputs(_ target: FuzzTarget) throws -> [[UInt8]] {
        let folder = corpus.appending(path: target.rawValue).path
        return try FileManager.default.contentsOfDirectory(atPath: folder).sorted().compactMap {
            FileManager.default.contents(atPath: folder + "/" + $0).map { [UInt8]($0) }
        }
    }

    @Test(arguments: FuzzTarget.allCases)
    func replay(target: FuzzTarget) throws {
        let inputs = try Self.inputs(target)
        #expect(inputs.count >= 2)
        for input in inputs { #expect(target.violation(input) == nil) }
    }

    /// Inputs of the corpus cut, joined and changed: a little fuzzing in each run, always the same.
    @Test(arguments: FuzzTarget.allCases)
    func mutated(target: FuzzTarget) throws {
        let inputs = try Self.inputs(target)
        var generator = SeededGenerator(seed: 5)
        for _ in 0..<3000 {
            var bytes = inputs[generator.below(inputs.count)]
            for _ in 0...generator.below(3) {
                let other = inputs[generator.below(inputs.count)]
                let at = generator.below(bytes.count + 1)
                switch generator.below(4) {
                case 0 where at < bytes.count: bytes[at] = UInt8(generator.below(256))
                case 1: bytes = Array(bytes[..<at]) + other.suffix(generator.below(other.count + 1))
                case 2: bytes.insert(contentsOf: generator.bytes(generator.below(8)), at: at)
                default: bytes.removeSubrange(at..<min(bytes.count, at + generator.below(8)))
                }
            }
            if let violation = target.violation(bytes) { Issue.record("\(violation): \(Hex.encode(bytes))") }
        }
    }
}
