import Foundation
import Storage
import Synchronization
import Testing
import VolumeEngine
import VolumeFormat

/// What comes between two lower calls of one operation, each time for certain.
@Suite struct MeanwhileTests {
    private func close(_ volume: Volume) {
        guard let zone = try? volume.zone(.root) else { return }
        _ = zone.drain(.keyRevoked)
        zone.close(.keyRevoked)
    }

    private func forgetKeys(_ volume: Volume) {
        let inodes = volume.retainInodes(of: .root)
        volume.forgetKeys(of: inodes)
        volume.release(inodes)
    }

    /// Runs `body` on a thread of its own, and returns when it has ended, or after a while.
    private func start(_ body: @escaping @Sendable () -> Void) -> DispatchGroup {
        let group = DispatchGroup()
        group.enter()
        Thread.detachNewThread {
            body()
            group.leave()
        }
        _ = group.wait(timeout: .now() + 0.3)
        return group
    }

    /// One file's read hangs in the lower storage: the others' keys go at once, whatever their order, and its own when it has ended.
    @Test func aReadHangs() throws {
        let test = try TestVolume()
        let files = try (0..<9).map { try test.create(Name("file\($0)")) }
        for file in files { try file.write([UInt8](repeating: 1, count: 10_000)) }
        let (hanging, inodes) = (files[4], files.map(\.inode))
        let (volume, ended) = (test.volume, DispatchGroup())
        test.volume.settle(inodes)
        #expect(volume.keysHeld(by: inodes) == 9)
        let left = Mutex<[Int]>([])
        FaultInjection.arm(nth: 1, of: [.pread]) {
            close(volume)
            ended.enter()
            Thread.detachNewThread {
                forgetKeys(volume)
                ended.leave()
            }
            let deadline = Date.now + 20
            while volume.keysHeld(by: inodes) > 1, Date.now < deadline { usleep(1000) }
            left.withLock { $0 = inodes.map { volume.keysHeld(by: [$0]) } }
        }
        defer { FaultInjection.disarm() }
        _ = try? hanging.readAll()
        ended.wait()
        #expect(left.withLock { $0 } == [0, 0, 0, 0, 1, 0, 0, 0, 0], "while it hung")
        #expect(volume.keysHeld(by: inodes) == 0)
    }

    enum Work: CaseIterable { case reencryption, check }

    /// What walks the lower tree meets a file whose creator has made it, and no more.
    @Test(arguments: Work.allCases) func aFileIsBeingCreated(work: Work) throws {
        let test = try TestVolume()
        try test.write("first", [1])
        let pending = try test.mount.beginReencryption(
            .root, scope: nil, rate: 0, flags: [], editing: RewrapTests.editing(test))
        let (mount, editing) = (test.mount, RewrapTests.editing(test))
        let failure = Mutex<String?>(nil)
        let findings = Mutex<[String]>([])
        let walk = Mutex<DispatchGroup?>(nil)
        FaultInjection.arm(nth: 1, of: [.fstat]) {
            let group = start {
                do {
                    if work == .check {
                        let report = try VolumeCheck(mount.volume, options: VolumeCheck.Options()).run()
                        findings.withLock { $0 = report.findings.map(\.path) }
                    } else {
                        _ = try mount.reencrypt(.root, pending, editing: editing, control: SweepControl())
                    }
                } catch { failure.withLock { $0 = "\(error)" } }
            }
            walk.withLock { $0 = group }
        }
        let file = try test.create("second")
        FaultInjection.disarm()
        try #require(walk.withLock { $0 }).wait()
        #expect(failure.withLock { $0 } == nil)
        #expect(findings.withLock { $0 } == [])
        try file.write([2])
        file.close()
        #expect(try test.read("second") == [2])
    }

    /// A re-encryption of a file comes when a program's attribute of it has been sealed, and is not stored yet.
    @Test(arguments: [10, 50_000]) func anAttributeIsBeingStored(size: Int) throws {
        let test = try TestVolume()
        let file = try test.create("file")
        try file.write([UInt8](repeating: 1, count: size))
        file.close()
        let inode = try test.lookUp("file").inode
        let pending = try test.mount.beginReencryption(
            .root, scope: nil, rate: 0, flags: [], editing: RewrapTests.editing(test))
        let (mount, editing) = (test.mount, RewrapTests.editing(test))
        let failure = Mutex<String?>(nil)
        let sweep = Mutex<DispatchGroup?>(nil)
        FaultInjection.arm(nth: 1, of: [.setxattr]) {
            let group = start {
                do { _ = try mount.reencrypt(.root, pending, editing: editing, control: SweepControl()) } catch {
                    failure.withLock { $0 = "\(error)" }
                }
            }
            sweep.withLock { $0 = group }
        }
        try test.setAttribute(inode, "user.color", [1, 2, 3])
        FaultInjection.disarm()
        try #require(sweep.withLock { $0 }).wait()
        #expect(failure.withLock { $0 } == nil)
        #expect(try test.volume.getAttribute(inode, "user.color") == [1, 2, 3])
        #expect(try test.volume.listAttributes(inode) == ["user.color"])
        #expect(test.check().findings == [])
    }
}
