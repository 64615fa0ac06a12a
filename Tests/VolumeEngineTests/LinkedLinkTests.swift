import Foundation
import Storage
import Synchronization
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// Links with several names get the newest metadata key, too, and stay one link.
@Suite struct LinkedLinkTests {
    private static let long = [UInt8](repeating: UInt8(ascii: "t"), count: 4000)
    private static let names: [(group: String, names: [Name], target: [UInt8])] = [
        ("short", ["a", "b", "c"], Array("somewhere".utf8)), ("long", ["d", "e"], long), ("single", ["f"], [0x78]),
    ]

    /// Does not wait for the next second: there are no files.
    private static var now: UInt64 { UInt64(Date.now.timeIntervalSince1970) }

    /// Names of a group lie in the root and in two directories.
    private func fill(_ test: TestVolume) throws {
        let directories = [test.top, try test.makeDirectory("one"), try test.makeDirectory("two")]
        for group in Self.names {
            let first = try test.makeLink(group.names[0], to: group.target)
            try test.setAttribute(first, "trusted.kind", Array(group.group.utf8))
            for (index, name) in group.names.enumerated().dropFirst() {
                test.volume.forget(try test.link(first, as: name, in: directories[index]), count: 1)
            }
            test.volume.forget(first, count: 1)
        }
    }

    private func verify(_ test: TestVolume, isWhole: Bool, _ comment: Comment) throws {
        let directories = [test.top, try test.lookUp("one").inode, try test.lookUp("two").inode]
        for group in Self.names {
            var numbers: Set<UInt64> = []
            for (index, name) in group.names.enumerated() {
                let entry = try test.lookUp(name, in: directories[index])
                numbers.insert(UInt64(entry.attributes.st_ino))
                if isWhole { #expect(Int(entry.attributes.st_nlink) == group.names.count, comment) }
                #expect(try test.volume.readLink(entry.inode) == group.target, comment)
                #expect(
                    try test.volume.getAttribute(entry.inode, "trusted.kind") == Array(group.group.utf8), comment)
            }
            #expect(numbers.count == 1, comment)
        }
    }

    private func successors(_ test: TestVolume) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: test.lower + "/.lethefs/links").filter { $0.contains(".") }
    }

    private func reencrypt(_ test: TestVolume) throws {
        let editing = RewrapTests.editing(test)
        let work = try test.mount.beginReencryption(
            .root, scope: nil, rate: 0, flags: [], editing: editing, cutoff: Self.now)
        _ = try test.mount.reencrypt(.root, work, editing: editing, control: SweepControl(), threads: 1)
    }

    @Test func allNamesFollow() throws {
        let test = try TestVolume()
        try fill(test)
        for round in 2...4 {
            try reencrypt(test)
            let coverage = try test.mount.coverage(.root)
            #expect(coverage.metadata == [KeyVersion(rawValue: UInt32(round)): 6], "\(coverage.metadata)")
            #expect(test.mount.keyring(.root)?.metadataKeys.map(\.version.rawValue) == [UInt32(round)])
            #expect(test.mount.keyring(.root)?.pending.isEmpty == true)
            #expect(try successors(test) == [])
            try verify(test, isWhole: true, "round \(round)")
        }
        // The tail of the long one alone is left.
        #expect(try FileManager.default.contentsOfDirectory(atPath: test.lower + "/.lethefs/links").count == 1)
        try test.remount()
        try verify(test, isWhole: true, "after a remount")
        #expect(test.check().findings.isEmpty)
    }

    /// As the kernel does it: what it knew may be gone, and it looks the name up anew.
    private static func change(
        _ what: String, of first: Inode, as name: [UInt8], _ volume: Volume, _ top: Inode
    ) throws(Errno) {
        var (inode, changes) = (first, AttributeChanges())
        changes.uid = 4711
        for turn in 0..<10 {
            do throws(Errno) {
                if what == "owner" {
                    _ = try volume.setAttributes(inode, changes)
                } else {
                    let value: [UInt8] = [2]
                    try value.withUnsafeBufferPointer { (value) throws(Errno) in
                        try volume.setAttribute(inode, "trusted.kind", UnsafeRawBufferPointer(value), flags: 0)
                    }
                }
                return
            } catch { guard error == .stale, turn < 9 else { throw error } }
            inode = try name.withUnsafeBufferPointer { (name) throws(Errno) in
                try volume.lookUp(top, UnsafeRawBufferPointer(name))
            }.inode
        }
    }

    /// What a program changes after the copy was made, and before it has the link's place.
    @Test(arguments: [["f"], ["a", "b"]] as [[Name]]) func changesBeforeTheExchange(names: [Name]) throws {
        let test = try TestVolume()
        let first = try test.makeLink(names[0], to: [0x78])
        for name in names.dropFirst() { test.volume.forget(try test.link(first, as: name), count: 1) }
        try test.setAttribute(first, "trusted.kind", [1])
        let (mount, volume, top, name) = (test.mount, test.volume, test.top, names[0].bytes)
        let failures = Mutex<[String]>([])
        let ended = DispatchGroup()
        FaultInjection.arm(nth: 1, of: [.utimensat]) {
            ended.enter()
            Thread.detachNewThread {
                for what in ["owner", "attribute"] {
                    do { try Self.change(what, of: first, as: name, volume, top) } catch {
                        failures.withLock { $0.append("\(what): \(error)") }
                    }
                }
                ended.leave()
            }
            _ = ended.wait(timeout: .now() + 0.3)
        }
        defer { FaultInjection.disarm() }
        let editing = RewrapTests.editing(test)
        let work = try mount.beginReencryption(
            .root, scope: nil, rate: 0, flags: [], editing: editing, cutoff: Self.now)
        _ = try mount.reencrypt(.root, work, editing: editing, control: SweepControl(), threads: 1)
        ended.wait()
        #expect(failures.withLock { $0 } == [])
        for name in names {
            let entry = try test.lookUp(name)
            #expect(entry.attributes.st_uid == 4711, "\(name)")
            #expect(try volume.getAttribute(entry.inode, "trusted.kind") == [2])
            #expect(Int(entry.attributes.st_nlink) == names.count)
        }
        #expect(try mount.coverage(.root).metadata.count == 1)
    }

    /// A crash after every lower call, and at once another metadata key before the sweep goes on: the names stay names of one link.
    @Test(.timeLimit(.minutes(10)), arguments: [false, true])
    func everyCallFailsFromThereOn(rotatingAgain: Bool) throws {
        let test = try TestVolume(inMemory: true)
        try fill(test)
        try test.close()
        let base = test.lower
        var nth = 0
        var seen = 0
        var interrupted = 0
        while nth <= seen {
            let copy = test.temporary["case"]
            try copyTree(base, to: copy)
            let one = try TestVolume(lower: copy, in: test.temporary, cmk: test.cmk)
            let editing = RewrapTests.editing(one)
            _ = try one.mount.beginReencryption(
                .root, scope: nil, rate: 0, flags: [], editing: editing, cutoff: Self.now)
            FaultInjection.arm(
                nth: nth == 0 ? .max : nth, of: FailingCallTests.everyCall, fault: .errno(.io), repeats: true)
            let work = try #require(one.mount.keyring(.root)?.pending.first)
            _ = try? one.mount.reencrypt(.root, work, editing: editing, control: SweepControl(), threads: 1)
            seen = max(seen, FaultInjection.disarm())
            try one.crash()
            if try !successors(one).isEmpty { interrupted += 1 }
            if rotatingAgain {
                try reencrypt(one)
            } else if let work = one.mount.keyring(.root)?.pending.first {
                _ = try one.mount.reencrypt(
                    .root, work, editing: RewrapTests.editing(one), control: SweepControl(), threads: 1)
            }
            try verify(one, isWhole: false, "call \(nth)")
            #expect(try one.mount.coverage(.root).metadata.count == 1, "call \(nth)")
            #expect(one.mount.keyring(.root)?.metadataKeys.count == 1, "call \(nth)")
            #expect(try successors(one) == [], "call \(nth)")
            #expect(one.check().findings.isEmpty, "call \(nth)")
            try runProgram("/bin/rm", ["-rf", copy, one.lower])
            nth += 1 + nth / 8
        }
        #expect(seen > 50 && interrupted > 1)
    }
}
