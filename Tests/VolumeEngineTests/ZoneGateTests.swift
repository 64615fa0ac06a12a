import CLinux
import Storage
import Testing
import VolumeEngine
import VolumeFormat

/// The gate of a zone: open, draining, closed; and what the engine keeps while it is shut.
@Suite struct ZoneGateTests {
    private func bytes(_ count: Int, _ seed: UInt8) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0) ^ seed }
    }

    private func code(_ body: () throws -> Void) -> Errno? {
        do {
            try body()
            return nil
        } catch { return error as? Errno }
    }

    private enum First: CaseIterable { case get, list, set, remove, sync }

    /// A file that is open all the time: what a program asks for first when the zone is open again, and nothing has brought the keys back yet.
    @Test(arguments: First.allCases) private func firstAfterTheOpening(first: First) throws {
        let test = try TestVolume()
        let file = try test.create("file")
        if first != .sync { try test.setAttribute(file.inode, "user.name", [1, 2, 3]) }
        let zone = try test.volume.zone(.root)
        _ = zone.drain(.keyRevoked)
        let inodes = test.volume.retainInodes(of: .root)
        zone.close(.keyRevoked)
        test.volume.forgetKeys(of: inodes)
        test.volume.release(inodes)
        zone.open(try test.mount.unlock(.root))
        switch first {
        case .get: #expect(try test.volume.getAttribute(file.inode, "user.name") == [1, 2, 3])
        case .list: #expect(try test.volume.listAttributes(file.inode) == ["user.name"])
        case .set: try test.setAttribute(file.inode, "user.name", [4])
        case .remove: try test.volume.removeAttribute(file.inode, "user.name")
        case .sync: try file.sync()
        }
        file.close()
        try test.remount()
        #expect(test.check().findings == [])
    }

    /// Programs are refused, what the kernel still has is stored; then nothing is; then all is as it was.
    @Test func drainCloseOpen() throws {
        let test = try TestVolume()
        let file = try test.create("file")
        try file.write(bytes(10_000, 1))
        let directory = try test.makeDirectory("directory")
        _ = try test.makeLink("link", to: Array("target".utf8))
        try test.setAttribute(file.inode, "user.name", [1, 2, 3])
        let zone = try test.volume.zone(.root)
        let link = try test.lookUp("link").inode

        #expect(zone.drain(.keyRevoked))
        #expect(!zone.drain(.noKey), "the first reason stays")
        #expect(zone.refusal == .keyRevoked)
        #expect(code { _ = try file.readAll() } == .keyRevoked)
        #expect(code { _ = try test.volume.attributes(file.inode) } == .keyRevoked)
        #expect(code { _ = try test.lookUp("file") } == .keyRevoked)
        #expect(code { _ = try test.list(directory) } == .keyRevoked)
        #expect(code { _ = try test.create("new") } == .keyRevoked)
        #expect(code { _ = try test.makeDirectory("new") } == .keyRevoked)
        #expect(code { try test.unlink("file") } == .keyRevoked)
        #expect(code { try test.rename("file", to: "moved") } == .keyRevoked)
        #expect(code { _ = try test.link(file.inode, as: "second") } == .keyRevoked)
        #expect(code { _ = try test.volume.readLink(link) } == .keyRevoked)
        #expect(code { _ = try test.volume.getAttribute(file.inode, "user.name") } == .keyRevoked)
        #expect(code { _ = try test.volume.listAttributes(file.inode) } == .keyRevoked)
        #expect(code { try test.setAttribute(file.inode, "user.name", []) } == .keyRevoked)
        #expect(code { try file.content.truncate(to: 1) } == .keyRevoked)
        #expect(code { try file.content.allocate(.punchHole, at: 0, count: 1) } == .keyRevoked)
        // Late from the kernel's cache: a part of a page, which needs the rest of it.
        try file.write(bytes(5000, 2), at: 9000)

        let inodes = test.volume.retainInodes(of: .root)
        #expect(inodes.contains { $0 === file.inode } && inodes.contains { $0 === directory })
        test.volume.settle(inodes)
        zone.close(.keyRevoked)
        test.volume.forgetKeys(of: inodes)
        test.volume.release(inodes)
        #expect(code { try file.write([1], at: 0) } == .keyRevoked)
        #expect(code { _ = try file.readAll() } == .keyRevoked)
        #expect(!test.volume.hasUnstored)

        // Closed, everything is on the lower storage as after a clean close.
        zone.open(try test.mount.unlock(.root))
        #expect(try file.readAll() == bytes(9000, 1) + bytes(5000, 2))
        try file.write([9], at: 13_999)
        #expect(try test.volume.getAttribute(file.inode, "user.name") == [1, 2, 3])
        #expect(try test.list() == ["file", "directory", "link"])
        file.close()
        try test.remount()
        #expect(try test.read("file").count == 14_000)
        #expect(test.check().findings == [])
        #expect(!test.volume.isAfterCrash)
    }

    /// A revoked volume is unmounted, or its daemon dies: its files are as they were stored before the keys went.
    @Test(arguments: [false, true])
    func endsWhileClosed(crash: Bool) throws {
        let test = try TestVolume()
        let file = try test.create("file")
        try file.write(bytes(20_000, 3))
        let zone = try test.volume.zone(.root)
        #expect(zone.drain(.noKey))
        let inodes = test.volume.retainInodes(of: .root)
        test.volume.settle(inodes)
        zone.close(.noKey)
        test.volume.forgetKeys(of: inodes)
        test.volume.release(inodes)
        file.close()
        if crash { try test.crash() } else { try test.remount() }
        #expect(test.volume.isAfterCrash == crash)
        #expect(try test.read("file") == bytes(20_000, 3))
        #expect(test.check().findings == [])
    }

    /// Two zones: names and links do not cross, keyrings are found again, and one that does not open closes its zone only.
    @Test func secondZone() throws {
        let test = try TestVolume()
        let made = try test.mount.makeKeyring(policy: .anyOf, cmks: [test.cmk])
        try test.mount.addZone(made.keyring, made.keys)
        let id = made.keyring.zone
        #expect(id.rawValue == 1)
        let name = Array("ward".utf8)
        let volume = test.volume
        let top = test.top
        let ward = try name.withUnsafeBytes { (name) throws(Errno) in
            try volume.makeDirectory(top, name, mode: 0o755, TestVolume.root, zone: id)
        }.inode
        try test.write("inside", bytes(5000, 4), in: ward)
        try test.write("outside", bytes(5000, 5))
        #expect(try volume.zone(of: ward) == id)
        #expect(try volume.zone(of: test.lookUp("inside", in: ward).inode) == id)
        #expect(code { try test.rename("inside", in: ward, to: "inside") } == .crossDevice)
        #expect(code { _ = try test.link(test.lookUp("outside").inode, as: "x", in: ward) } == .crossDevice)
        let zone = try volume.zone(id)
        #expect(zone.drain(.keyRevoked))
        zone.close(.keyRevoked)
        let inodes = volume.retainInodes(of: id)
        volume.forgetKeys(of: inodes)
        volume.release(inodes)
        #expect(code { _ = try test.read("inside", in: ward) } == .keyRevoked)
        #expect(code { _ = try test.list(ward) } == .keyRevoked)
        #expect(try test.read("outside") == bytes(5000, 5))
        zone.open(try test.mount.unlock(id))
        #expect(try test.read("inside", in: ward) == bytes(5000, 4))
        try test.remount()
        #expect(test.mount.zoneKeyrings.map(\.zone.rawValue) == [0, 1])
        #expect(try test.read("inside", in: test.lookUp("ward").inode) == bytes(5000, 4))
        #expect(test.check().findings == [])
    }

    /// A keyring changes under the mount: stored with the next generation, authentic, and found by the next mount.
    @Test func changedKeyring() throws {
        let test = try TestVolume()
        let before = try #require(test.mount.keyring(.root))
        try test.mount.changeKeyring(.root) { keyring, keys in
            keyring.cmks[0].history.append(StateChange(.suspended, at: 5))
            return keys
        }
        try test.mount.probe(.root)
        try test.remount()
        let after = try #require(test.mount.keyring(.root))
        #expect(after.generation == before.generation + 1)
        #expect(after.cmks[0].history.last == StateChange(.suspended, at: 5))
    }

    /// Keys from before a rotation come back after it: a keyring that they seal would open under no keys any more. None is stored.
    @Test func keysThatAreNotTheKeyrings() throws {
        let test = try TestVolume()
        let before = try test.volume.zone(.root).keys()
        _ = try test.mount.rotateKEK(.root, editing: RewrapTests.editing(test))
        let stored = test.mount.keyring(.root)
        #expect(throws: VolumeError.self) { try test.mount.changeKeyring(.root) { _, _ in before } }
        #expect(test.mount.keyring(.root) == stored)
        try test.remount()
    }

    /// Node numbers are dense: what the kernel has forgotten is given again, and the highest stays low.
    @Test func nodeNumbers() throws {
        let test = try TestVolume(features: [])
        for round in 0..<50 {
            for number in 0..<20 { try test.write("\(round)-\(number)", [1]) }
            let entries = try (0..<20).map { try test.lookUp("\(round)-\($0)").inode }
            #expect(Set(entries.map(\.node)).count == 20)
            #expect(entries.allSatisfy { test.volume.inode(node: $0.node) === $0 })
            for entry in entries { test.volume.forget(entry, count: 1) }
        }
        #expect(test.top.node == 1)
        let last = try test.create("last")
        #expect(last.inode.node <= 64)
        last.close()
    }
}
