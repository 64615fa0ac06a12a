import Foundation
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// A DEK that comes near its bound gives way to a new one; where the header has no slot left for it, the old ones are made to go.
@Suite struct DEKReplacementTests {
    static func options() -> Volume.Options {
        var options = Volume.Options()
        options.invocationLease = 8
        options.invocationLimit = 16
        return options
    }

    private func currentVersion(_ test: TestVolume) throws -> UInt32 {
        try #require(test.mount.coverage(.root).deks.filter { $0.value.files > 0 }.keys.first).rawValue
    }

    @Test(arguments: [false, true], [false, true])
    func manyTimes(withAttributes: Bool, reopening: Bool) throws {
        let test = try TestVolume(options: Self.options())
        var file = try test.create("file")
        var model = [UInt8]((0..<40_000).map { UInt8(truncatingIfNeeded: $0 &* 13) })
        try file.write(model)
        let inode = try test.lookUp("file").inode
        let attributes = ["user.one": [1], "user.two": [UInt8](repeating: 2, count: 1000), "security.three": []]
        if withAttributes { for (name, value) in attributes { try test.setAttribute(inode, name, value) } }
        for round in 0..<200 {
            let offset = (round &* 7919) % 36_000
            let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 3000)
            try file.write(bytes, at: offset)
            model.replaceSubrange(offset..<offset + 3000, with: bytes)
            if round % 50 == 10 { try file.truncate(to: model.count) }
            if round % 50 == 20 {
                try file.allocate([.punchHole, .keepSize], at: 5000, count: 6000)
                model.replaceSubrange(5000..<11_000, with: [UInt8](repeating: 0, count: 6000))
            }
            if withAttributes, round % 20 == 0 {
                #expect(try test.volume.getAttribute(inode, "user.two") == attributes["user.two"], "round \(round)")
                #expect(Set(try test.volume.listAttributes(inode)) == Set(attributes.keys), "round \(round)")
            }
            if reopening, round % 3 == 0 {
                file.close()
                file = try test.open("file")
            }
        }
        // More than a header has slots for.
        #expect(try currentVersion(test) > 8)
        #expect(try file.readAll() == model)
        try test.crash()
        #expect(try test.read("file") == model)
        if withAttributes {
            let inode = try test.lookUp("file").inode
            for (name, value) in attributes { #expect(try test.volume.getAttribute(inode, name) == value) }
            #expect(Set(try test.volume.listAttributes(inode)) == Set(attributes.keys))
        }
        #expect(test.check().findings.isEmpty)
    }

    /// No DEK seals more than it may, and what the last lease has beyond, also where all pages are sealed anew by it.
    @Test func withinTheLimit() throws {
        var options = Self.options()
        options.invocationLimit = 64
        let test = try TestVolume(features: [], options: options)
        let file = try test.create("file")
        try file.write([UInt8](repeating: 1, count: 40_000))
        let name = try #require(try test.lowerNames().first { !$0.contains(".") })
        var (highest, sealedAnew, slots) = (UInt64(0), 0, 1)
        for round in 0..<300 {
            try file.write([UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 3000), at: round * 100)
            let stored = try Data(contentsOf: URL(fileURLWithPath: test.lower + "/" + name)).prefix(512)
            let header = try Array(stored).withUnsafeBytes { try FileHeader(parsing: $0) }
            highest = max(highest, header.slots.map(\.invocationBound).max() ?? 0)
            if header.slots.count < slots { sealedAnew += 1 }
            slots = header.slots.count
        }
        #expect(sealedAnew > 1)
        #expect(highest < options.invocationLimit + options.invocationLease)
        file.close()
    }

    /// Attributes that a program sets, removes and reads meanwhile are neither lost nor come back.
    @Test(.timeLimit(.minutes(10))) func whileAttributesChange() throws {
        let test = try TestVolume(options: Self.options())
        let file = try test.create("file")
        try file.write([UInt8](repeating: 1, count: 20_000))
        let inode = try test.lookUp("file").inode
        try test.setAttribute(inode, "user.kept", [7])
        let done = DispatchSemaphore(value: 0)
        let volume = test.volume
        Thread.detachNewThread {
            for round in 0..<300 {
                do {
                    let value = [UInt8(truncatingIfNeeded: round)]
                    try value.withUnsafeBytes { try volume.setAttribute(inode, "user.coming", $0, flags: 0) }
                    #expect(try volume.getAttribute(inode, "user.coming") == value)
                    try volume.removeAttribute(inode, "user.coming")
                    #expect(try volume.listAttributes(inode) == ["user.kept"])
                    #expect(try volume.getAttribute(inode, "user.kept") == [7])
                } catch { Issue.record(error) }
            }
            done.signal()
        }
        for round in 0..<300 {
            try file.write([UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 3000), at: round * 40)
        }
        done.wait()
        #expect(try currentVersion(test) > 8)
        file.close()
        #expect(test.check().findings.isEmpty)
    }

    /// Every lower call fails once on the way: no byte and no attribute is lost. A flush that fails ends it: `LostFlushTests`.
    @Test func everyCallFailsOnce() throws {
        let test = try TestVolume(inMemory: true, options: Self.options())
        let file = try test.create("file")
        let inode = try test.lookUp("file").inode
        var model = [UInt8](repeating: 1, count: 20_000)
        try file.write(model)
        try test.setAttribute(inode, "user.kept", [7])
        var failures = 0
        for nth in 1..<60 {
            FaultInjection.arm(
                nth: nth, of: FailingCallTests.everyCall.subtracting([.fsync, .fdatasync, .syncfs]), fault: .errno(.io))
            for step in 0..<12 {
                let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: nth + step), count: 4000)
                let before = model
                model.replaceSubrange(step * 1000..<step * 1000 + 4000, with: bytes)
                do { try file.write(bytes, at: step * 1000) } catch {
                    failures += 1
                    // What a failed write left is the one or the other, page by page: written again it is known.
                    model = before
                    _ = FaultInjection.disarm()
                    do { try file.write(Array(model[step * 1000..<step * 1000 + 4000]), at: step * 1000) } catch {
                        Issue.record("call \(nth), step \(step), again: \(error) \(test.takeDamages())")
                        return
                    }
                }
            }
            _ = FaultInjection.disarm()
            #expect(try file.readAll() == model, "call \(nth)")
            #expect(try test.volume.getAttribute(inode, "user.kept") == [7], "call \(nth)")
        }
        #expect(failures > 20)
        try test.crash()
        #expect(try test.read("file") == model)
        #expect(try test.volume.getAttribute(try test.lookUp("file").inode, "user.kept") == [7])
        #expect(test.check().findings.isEmpty)
    }
}
