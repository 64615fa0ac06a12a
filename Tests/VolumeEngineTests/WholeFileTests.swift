import Storage
import TestSupport
import Testing
import VolumeEngine

/// New files that one request makes are stored as closed with it.
@Suite struct WholeFileTests {
    private static let content = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 / 3) }

    /// Neither closed nor flushed by the daemon: it is all there for the next one.
    @Test(arguments: [1, 3552, 3553, 20_000]) func daemonThatIsKilled(count: Int) throws {
        let test = try TestVolume()
        let file = try test.create("a")
        let bytes = Array(Self.content[..<count])
        try file.write(bytes)
        try test.crash()
        file.close()
        #expect(try test.read("a") == bytes)
        #expect(test.takeDamages().isEmpty)
    }

    /// What comes after the first request, and a crash after that.
    @Test(arguments: [0, 1, 3000, 5000, 30_000]) func goesOn(at offset: Int) throws {
        let test = try TestVolume()
        let file = try test.create("a")
        try file.write(Array(Self.content[..<5000]))
        try file.write([9, 9, 9], at: offset)
        var model = Array(Self.content[..<5000])
        if offset + 3 > model.count { model += [UInt8](repeating: 0, count: offset + 3 - model.count) }
        model.replaceSubrange(offset..<offset + 3, with: [9, 9, 9])
        #expect(try file.readAll() == model)
        try file.sync()
        try test.crash()
        file.close()
        #expect(try test.read("a") == model)
        try test.remount()
        #expect(try test.read("a") == model)
        #expect(test.check().findings == [])
    }

    /// The header knows nothing of a first request that failed: what was flushed later is as long as it was.
    @Test(arguments: [LowerCall.pwrite, .ftruncate]) func firstWriteThatFails(call: LowerCall)
        throws
    {
        let test = try TestVolume(features: [])
        let file = try test.create("a")
        FaultInjection.arm(nth: 1, of: [call], fault: .errno(.noSpace))
        defer { FaultInjection.disarm() }
        #expect(throws: Errno.noSpace) { try file.write(Self.content) }
        FaultInjection.disarm()
        try file.sync()
        try file.write([1, 2, 3])
        try file.sync()
        #expect(file.size == 3)
        try test.crash()
        file.close()
        #expect(try test.read("a") == [1, 2, 3])
    }
}
