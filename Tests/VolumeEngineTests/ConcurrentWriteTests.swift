import Foundation
import Storage
import Synchronization
import TestSupport
import Testing
import VolumeEngine

/// Writes of several threads to one file, none of which ends where a page does: what one prepares from a page must not undo what another has
/// written to it meanwhile.
@Suite struct ConcurrentWriteTests {
    private static let writers = 5
    /// Bytes that belong to one writer, in turns with the others': several writers meet in each page.
    private static let stripe = 700
    private static let size = 700 * 5 * 100

    /// What goes on beside the writers.
    enum Beside: CaseIterable { case nothing, reencryption, reencryptionAndFullDEKs }

    @Test(.timeLimit(.minutes(10)), arguments: Beside.allCases)
    func nothingIsLost(beside: Beside) throws {
        var options = Volume.Options()
        // A DEK is used up every few hundred pages, also between the moment when a sweep seals and that when it stores.
        if beside == .reencryptionAndFullDEKs { (options.invocationLimit, options.invocationLease) = (400, 100) }
        let rotating = beside != .nothing
        let test = try TestVolume(options: options)
        let file = try test.create("busy")
        var model = [UInt8](repeating: 0, count: Self.size)
        try file.write(model)
        for (offset, bytes) in try work(on: file.content, of: test, rotating: rotating) {
            model.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        }
        try file.truncate(to: Self.size)
        #expect(try file.readAll() == model)
        file.close()
        #expect(test.takeDamages().isEmpty)
        try test.remount()
        #expect(try test.read("busy") == model)
        #expect(test.check().findings == [])
    }

    /// All at once; returns what the writers wrote. Nothing of the mount stays behind: it is to be mounted again.
    private func work(
        on content: FileContent, of test: TestVolume, rotating: Bool
    ) throws -> [(offset: Int, bytes: [UInt8])] {
        let (volume, mount) = (test.volume, test.mount)
        let work =
            rotating
            ? try mount.beginReencryption(.root, scope: nil, rate: 0, flags: [], editing: RewrapTests.editing(test))
            : nil
        let editing = RewrapTests.editing(test)
        let written = Mutex<[(offset: Int, bytes: [UInt8])]>([])
        let left = Atomic<Int>(Self.writers)
        DispatchQueue.concurrentPerform(iterations: Self.writers + 3) { number in
            do {
                switch number {
                case ..<Self.writers:
                    let mine = try write(number, content, volume)
                    written.withLock { $0 += mine }
                    left.subtract(1, ordering: .releasing)
                case Self.writers:
                    while left.load(ordering: .acquiring) > 0 { try growAndShrink(content, volume) }
                case Self.writers + 1:
                    while left.load(ordering: .acquiring) > 0 { try read(content, volume) }
                default:
                    if let work { _ = try mount.reencrypt(.root, work, editing: editing, control: SweepControl()) }
                }
            } catch { Issue.record(error) }
        }
        return written.withLock { $0 }
    }

    /// Writes over parts of one writer's stripes, in an order of its own; returns what was written, the last of each place last.
    private func write(
        _ number: Int, _ content: FileContent, _ volume: Volume
    ) throws(Errno) -> [(offset: Int, bytes: [UInt8])] {
        var random = SeededGenerator(seed: UInt64(number) + 1)
        var done: [(offset: Int, bytes: [UInt8])] = []
        for _ in 0..<3000 {
            let turn = random.below(Self.size / Self.stripe / Self.writers)
            let skip = random.below(Self.stripe - 1)
            let offset = (turn * Self.writers + number) * Self.stripe + skip
            let bytes = [UInt8](
                repeating: UInt8(truncatingIfNeeded: random.below(256)),
                count: 1 + random.below(Self.stripe - skip))
            try Self.store(bytes, at: offset, content, volume)
            done.append((offset, bytes))
        }
        return done
    }

    /// Behind the others' bytes, but in their last page, too.
    private func growAndShrink(_ content: FileContent, _ volume: Volume) throws(Errno) {
        for count in [1, 300, 5000, 100_000] {
            try Self.store([UInt8](repeating: 7, count: count), at: Self.size, content, volume)
        }
        try content.truncate(to: UInt64(Self.size))
    }

    private func read(_ content: FileContent, _ volume: Volume) throws(Errno) {
        let buffer = volume.buffers.take()
        defer { volume.buffers.give(buffer) }
        _ = try content.read(at: UInt64(Int.random(in: 0..<Self.size - 20_000)), count: 20_000, buffer)
    }

    private static func store(
        _ bytes: [UInt8], at offset: Int, _ content: FileContent, _ volume: Volume
    ) throws(Errno) {
        let buffer = volume.buffers.take()
        defer { volume.buffers.give(buffer) }
        try bytes.withUnsafeBufferPointer { (bytes) throws(Errno) in
            try content.write(UnsafeRawBufferPointer(bytes), at: UInt64(offset), buffer)
        }
    }
}
