import CLinux
import Foundation
import KeyManagement
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// Calls to the lower storage that fail, crashes, and a revocation, while a tree is on its way.
extension AssignTests {
    /// Every lower call fails once: after a crash all opens, and the next mount finishes.
    @Test(.timeLimit(.minutes(10)), arguments: [Errno.io, .noSpace]) func everyCallFailsOnce(errno: Errno) throws {
        let test = try TestVolume(inMemory: true)
        let tree = try fill(test)
        let zone = try addZone(test)
        try test.close()
        let base = test.lower
        var nth = 0
        var seen = 0
        // The first round counts, and fails nothing.
        while nth <= seen {
            let copy = test.temporary["case"]
            try copyTree(base, to: copy)
            let one = try TestVolume(lower: copy, in: test.temporary, cmk: test.cmk)
            FaultInjection.arm(nth: nth == 0 ? .max : nth, of: FailingCallTests.everyCall, fault: .errno(errno))
            if let work = try? begin(one, zone) {
                let directory = try? one.volume.resolve("tree")
                _ = try? one.mount.assign(zone, work, directory: directory, control: SweepControl(), threads: 1)
            }
            seen = max(seen, FaultInjection.disarm())
            for moment in ["at once", "after a crash"] {
                if moment != "at once" { try one.crash() }
                do { try verify(one, tree, "call \(nth), \(moment)") } catch {
                    Issue.record("call \(nth), \(moment): \(error), \(one.takeDamages())")
                }
            }
            if one.mount.keyring(zone)?.pending.isEmpty == true, try one.mount.coverage(zone).keks.isEmpty {
                _ = try begin(one, zone)
            }
            try finish(one, zone, threads: 1)
            try verifyArrived(one, zone, comment: "call \(nth)")
            try verify(one, tree, "call \(nth), at the end")
            try runProgram("/bin/rm", ["-rf", copy, one.lower])
            nth += 3 + nth / 6
        }
        #expect(seen > 100)
    }

    /// A link whose target is stored in two pieces has it whichever look at a lower object fails.
    @Test(.timeLimit(.minutes(10))) func aLongLinkSurvivesFailures() throws {
        let test = try TestVolume(inMemory: true)
        let top = try test.makeDirectory("tree")
        test.volume.forget(try test.makeLink("long link", to: Tree.link, in: top), count: 1)
        let zone = try addZone(test)
        try test.close()
        let base = test.lower
        var (nth, seen) = (0, 0)
        while nth <= seen {
            let copy = test.temporary["case"]
            try copyTree(base, to: copy)
            let one = try TestVolume(lower: copy, in: test.temporary, cmk: test.cmk)
            let work = try begin(one, zone)
            FaultInjection.arm(nth: nth == 0 ? .max : nth, of: [.fstat], fault: .errno(.io))
            let directory = try? one.volume.resolve("tree")
            _ = try? one.mount.assign(zone, work, directory: directory, control: SweepControl(), threads: 1)
            seen = max(seen, FaultInjection.disarm())
            let link = try one.lookUp("long link", in: try one.lookUp("tree").inode).inode
            let target = Result { () throws(Errno) in try one.volume.readLink(link) }
            #expect((try? target.get()) == Tree.link, "call \(nth): \(one.takeDamages())")
            one.drop()
            try runProgram("/bin/rm", ["-rf", copy])
            nth += 1
        }
        #expect(seen > 10)
    }

    /// Begun, and ended by a cancellation when so many objects are converted.
    private func partly(_ test: TestVolume, _ zone: ZoneID, objects: UInt64) throws -> PendingWork {
        let directory = try test.volume.resolve("tree")
        defer { test.volume.forget(directory, count: 1) }
        let work = try test.mount.beginAssignment(directory, to: zone)
        let control = SweepControl()
        control.setRate(bytesPerSecond: 20_000)
        let mount = test.mount
        let done = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            do {
                _ = try mount.assign(zone, work, directory: directory, control: control, threads: 1)
            } catch { Issue.record(error) }
            done.signal()
        }
        while control.progress.changed < objects { usleep(500) }
        control.cancel()
        done.wait()
        return work
    }

    /// Halfway: everything is read and written; names stay on their side; each zone is revoked for itself; and the source's old KEK
    /// can go only when nothing needs it.
    @Test(arguments: [3, 5, 8] as [UInt64]) func halfway(objects: UInt64) throws {
        let test = try TestVolume()
        let tree = try fill(test)
        let zone = try addZone(test)
        let work = try partly(test, zone, objects: objects)
        #expect(test.mount.keyring(zone)?.pending == [work])
        try verify(test, tree)
        let top = try test.lookUp("tree").inode
        // Nothing goes in or out, in neither zone.
        #expect(code { try test.rename("file1", in: top, to: "out") } == .crossDevice)
        #expect(code { try test.rename("outside", to: "in", inside: top) } == .crossDevice)
        let link = try test.lookUp("link", in: top).inode
        #expect(code { _ = try test.link(link, as: "third", in: top) } == .crossDevice)
        let inner = try test.lookUp("inner", in: top).inode
        try test.rename("file0", in: top, to: "renamed", inside: inner)
        try test.rename("renamed", in: inner, to: "file0", inside: top)
        try test.write("new", [1, 2], in: inner)
        let file = try test.open("file5", in: top)
        // A new KEK of the source reaches what is on its way, and the old one is not let go before.
        let sourceKEK = try test.mount.rotateKEK(.root, editing: RewrapTests.editing(test))
        let before = try test.mount.coverage(.root)
        #expect((before.keks[.first]?.files ?? 0) > 1 || objects > 7, "\(before.keks)")
        #expect(throws: VolumeError.self) {
            _ = try test.mount.retire(.root, .first, editing: RewrapTests.editing(test))
        }
        try test.mount.rewrap(.root, control: SweepControl())
        #expect(try test.mount.retire(.root, .first, editing: RewrapTests.editing(test)) == 1)
        #expect(try test.mount.coverage(.root).keks.keys.map { $0 } == [sourceKEK])
        file.close()
        try test.unlink("new", in: inner)
        try verify(test, tree)
        // As is, at the next mount.
        try test.crash()
        try verify(test, tree)
        try finish(test, zone)
        try verifyArrived(test, zone)
        try verify(test, tree)
    }

    /// The source is revoked in the middle: the sweep ends, what is still the source's is refused, and it goes on afterwards.
    @Test func theSourceIsRevokedInTheMiddle() throws {
        let test = try TestVolume()
        let tree = try fill(test)
        let (first, second) = (try addZone(test), try addZone(test))
        _ = try begin(test, first)
        try finish(test, first)
        let work = try partly(test, second, objects: 5)
        let top = try test.lookUp("tree").inode
        let zone = try test.volume.zone(first)
        #expect(zone.drain(.keyRevoked))
        zone.close(.keyRevoked)
        test.volume.forgetKeys(of: test.volume.retainInodes(of: first))
        let control = SweepControl()
        #expect(try test.mount.assign(second, work, control: control) == nil)
        #expect(control.isCancelled)
        var outcomes: [Errno?] = []
        for (name, bytes) in tree.contents where !bytes.isEmpty {
            outcomes.append(
                code {
                    let found = try test.read(name, in: top)
                    #expect(found == bytes)
                })
        }
        #expect(outcomes.contains(nil) && outcomes.contains(.keyRevoked), "\(outcomes)")
        #expect(Set(outcomes).isSubset(of: [nil, .keyRevoked]))
        zone.open(try test.mount.unlock(first))
        try verify(test, tree)
        try finish(test, second)
        try verifyArrived(test, second, source: first)
        try verify(test, tree)
    }
}
