import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// A file against an array of bytes: random operations, sizes and offsets mostly at the edges of pages.
@Suite struct ContentModelTests {
    static let operations = 6000
    private static let largest = 6 * 4096

    private struct Run {
        let test: TestVolume
        var file: TestFile
        var model: [UInt8] = []
        var generator: SeededGenerator
        var log: [String] = []

        /// Near a boundary of payloads or of 4096 bytes, or anywhere.
        mutating func position() -> Int {
            let base: Int
            switch generator.below(4) {
            case 0: base = generator.below(ContentModelTests.largest)
            case 1: base = 3552 + 4064 * generator.below(5)
            case 2: base = 4096 * generator.below(6)
            default: base = model.count
            }
            return max(0, base + [0, 0, 1, -1, 2, -32, 32, 512, -512][generator.below(9)])
        }

        mutating func length() -> Int {
            [1, 2, 100, 511, 3552, 4063, 4064, 4065, 4096, 8128, 1 + generator.below(9000)][generator.below(11)]
        }

        mutating func note(_ text: String) {
            log.append(text)
            if log.count > 25 { log.removeFirst() }
        }

        mutating func grow(to count: Int) {
            if model.count < count { model.append(contentsOf: repeatElement(0, count: count - model.count)) }
        }

        mutating func step() throws {
            switch generator.below(20) {
            case 0...7: try write()
            case 8...10: try truncate()
            case 11...12: try punch(.punchHole)
            case 13: try punch(.zeroRange)
            case 14: try allocate()
            case 15...16: try read()
            case 17:
                note("reopen")
                file.close()
                file = try test.open("file")
            case 18 where generator.below(10) == 0:
                note("remount")
                file.close()
                try test.remount()
                file = try test.open("file")
            case 19 where generator.below(12) == 0:
                note("crash")
                try test.crash()
                file = try test.open("file")
            default: try file.sync()
            }
        }

        mutating func write() throws {
            let (offset, bytes) = (position(), generator.bytes(length()))
            note("write \(offset) \(bytes.count)")
            try file.write(bytes, at: offset)
            grow(to: offset + bytes.count)
            model.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        }

        mutating func truncate() throws {
            let size = position()
            note("truncate \(size)")
            try file.truncate(to: size)
            grow(to: size)
            model.removeLast(model.count - size)
        }

        mutating func punch(_ mode: AllocateMode) throws {
            let (offset, count) = (position(), length())
            let keeps = mode == .punchHole || Bool.random(using: &generator)
            note("\(mode == .punchHole ? "punch" : "zero") \(offset) \(count) keep \(keeps)")
            try file.allocate(keeps ? [mode, .keepSize] : mode, at: offset, count: count)
            if !keeps { grow(to: offset + count) }
            let end = min(offset + count, model.count)
            if offset < end { model.replaceSubrange(offset..<end, with: repeatElement(0, count: end - offset)) }
        }

        mutating func allocate() throws {
            let (offset, count) = (position(), length())
            let keeps = Bool.random(using: &generator)
            note("allocate \(offset) \(count) keep \(keeps)")
            try file.allocate(keeps ? .keepSize : [], at: offset, count: count)
            if !keeps { grow(to: offset + count) }
        }

        mutating func read() throws {
            let (offset, count) = (position(), length())
            note("read \(offset) \(count)")
            let expected = model.dropFirst(offset).prefix(count)
            try #require(try file.read(at: offset, count: count) == Array(expected))
        }

        func verify() throws {
            try #require(file.size == model.count)
            try #require(try file.readAll() == model)
        }
    }

    @Test(arguments: 0..<8)
    func randomOperations(seed: Int) throws {
        let test = try TestVolume(inMemory: true)
        var run = Run(test: test, file: try test.create("file"), generator: SeededGenerator(seed: UInt64(seed)))
        for index in 0..<Self.operations {
            do {
                try run.step()
                if index % 4 == 0 || seed == 0 { try run.verify() }
            } catch {
                Issue.record(
                    "seed \(seed), step \(index): \(error) \(test.takeDamages())\n\(run.log.joined(separator: "\n"))")
                return
            }
        }
        try run.verify()
        run.file.close()
        try test.remount()
        #expect(try test.read("file") == run.model)
        #expect(test.check().findings == [])
    }
}
