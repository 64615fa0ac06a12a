import CLinux
import ControlPlane
import Dispatch
import KeyManagement
import Storage
import Synchronization
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// A zone's keeper over an engine without FUSE.
@Suite struct ZoneKeeperTests {
    /// Events as they come.
    private final class Events: Sendable {
        private let seen = Mutex<[ZoneKeeper.Event]>([])
        func add(_ event: ZoneKeeper.Event) { seen.withLock { $0.append(event) } }

        var renewals: Int { count { if case .renewed = $0 { true } else { false } } }
        var outages: Int { count { if case .outage = $0 { true } else { false } } }
        var ends: Int { count { if case .outageOver = $0 { true } else { false } } }
        private func count(_ isOne: (ZoneKeeper.Event) -> Bool) -> Int { seen.withLock { $0.count(where: isOne) } }
    }

    /// Instead of one. `onPurge` says whether a purge was complete.
    private struct Kernel: KernelCaching {
        var onPurge: @Sendable ([UInt64]) -> Bool = { _ in true }
        func invalidateAttributes(_ nodes: [UInt64]) {}
        func purge(_ nodes: [CachedNode], inPieces: Bool) -> Bool { onPurge(nodes.map(\.number)) }
        func wipeRequests() -> Bool { true }
        func expireNames() -> Bool { true }
        func forget(_ name: [UInt8], in parent: UInt64) {}
    }

    private func keeper(
        _ test: TestVolume, _ events: Events, timing: LeaseTiming, device: dev_t? = nil, kernel: Kernel = Kernel(),
        onLease: @escaping @Sendable (Double?) -> Void = { _ in }
    ) throws -> ZoneKeeper {
        ZoneKeeper(
            try test.volume.zone(.root), of: test.mount, timing: timing, kernel: kernel,
            mountPoint: test.temporary["mount"], device: device, describe: { "\($0)" }, onLease: { onLease($1) },
            onEvent: { events.add($0) })
    }

    private func wait(_ condition: () -> Bool) -> Bool {
        for _ in 0..<500 {
            if condition() { return true }
            usleep(10_000)
        }
        return false
    }

    /// Probes that fail renew nothing, however long the lease runs on.
    @Test func anOutageIsNoRenewal() throws {
        let test = try TestVolume()
        let events = Events()
        let keeper = try keeper(
            test, events, timing: LeaseTiming(probeSeconds: 0.01, leaseSeconds: 0.1, graceSeconds: 600))
        keeper.start()
        #expect(wait { events.renewals >= 3 })
        test.cmk.refuse(.unreachable)
        #expect(wait { events.outages == 1 })
        let (before, unwraps) = (events.renewals, test.cmk.unwraps)
        #expect(wait { test.cmk.unwraps > unwraps + 10 })
        #expect(events.renewals == before && events.outages == 1 && events.ends == 0)
        #expect(keeper.condition.state == "open")
        test.cmk.refuse(nil)
        #expect(wait { events.renewals > before + 2 })
        #expect(events.ends == 1)
        keeper.stop()
    }

    /// A refused PIN is no outage: the keys go with the lease, and whoever watches the daemon hears of it. While the owner is away they stay.
    @Test func graceIsForOutagesOnly() throws {
        let test = try TestVolume()
        let ends = Mutex<[Double]>([])
        let keeper = try keeper(
            test, Events(), timing: LeaseTiming(probeSeconds: 0.01, leaseSeconds: 2, graceSeconds: 600),
            onLease: { end in if let end { ends.withLock { $0.append(end) } } })
        keeper.start()
        #expect(wait { ends.withLock { $0.count } > 2 })
        test.cmk.refuse(.pinIncorrect)
        let refused = BootClock.now
        #expect(wait { ends.withLock { ($0.last ?? .infinity) < refused + 3 } })
        test.cmk.refuse(.unreachable)
        #expect(wait { ends.withLock { ($0.last ?? 0) > refused + 500 } })
        test.cmk.refuse(.pinIncorrect)
        #expect(wait { keeper.condition.state == "revoked" })
        keeper.stop()
    }

    /// A program writes, and the lower storage does not answer: programs are refused at once all the same.
    @Test func aRevocationWhileTheLowerStorageHangs() throws {
        let test = try TestVolume()
        let events = Events()
        try test.write("file", [UInt8](repeating: 1, count: 10_000))
        let file = try test.open("file")
        let keeper = try keeper(
            test, events, timing: LeaseTiming(probeSeconds: 60, leaseSeconds: 600), device: 0)
        keeper.start()
        let zone = try test.volume.zone(.root)
        let revoked = DispatchGroup()
        let refusedAfter = Mutex<Double?>(nil)
        FaultInjection.arm(nth: 1, of: [.pwrite]) { [self] in
            let began = BootClock.now
            DispatchQueue.global().async(group: revoked) { _ = keeper.revoke(cause: "test") }
            // It may last for longer than any step of a revocation.
            if wait({ zone.refusal == .keyRevoked }) { refusedAfter.withLock { $0 = BootClock.now - began } }
        }
        try? file.write([2, 2, 2], at: 100)
        FaultInjection.disarm()
        revoked.wait()
        let seconds = try #require(refusedAfter.withLock { $0 }, "nobody was refused while it hung")
        #expect(seconds < 2)
        #expect(keeper.condition.state == "revoked")
        #expect(wait { test.volume.keysHeld(by: [test.top, file.inode]) == 0 })
        keeper.stop()
        file.close()
    }

    /// The kernel could not be made to write one file: what a program wrote there may not be stored.
    @Test func aPurgeThatIsNotCompleteIsNoDrain() throws {
        let test = try TestVolume()
        let file = try test.create("file")
        try file.write([1, 2, 3])
        let node = file.inode.node
        let kernel = Kernel { !$0.contains(node) }
        let keeper = try keeper(
            test, Events(), timing: LeaseTiming(probeSeconds: 60, leaseSeconds: 600), kernel: kernel)
        keeper.start()
        _ = keeper.revoke(cause: "test")
        let report = try #require(keeper.condition.lastRevocation)
        #expect(!report.isDrained && !report.isComplete)
        keeper.stop()
        file.close()
    }

    /// What the kernel took in while a zone was closed, and could not store, is gone before programs may use the zone again.
    @Test func theKernelIsPurgedBeforeAZoneOpensAgain() throws {
        let test = try TestVolume()
        try test.write("file", [1, 2, 3])
        let node = try test.lookUp("file").inode.node
        let zone = try test.volume.zone(.root)
        let purgedWhileOpen = Mutex<[Bool]>([])
        let kernel = Kernel { nodes in
            if nodes.contains(node) { purgedWhileOpen.withLock { $0.append(zone.isOpen) } }
            return true
        }
        let keeper = try keeper(
            test, Events(), timing: LeaseTiming(probeSeconds: 60, leaseSeconds: 600), kernel: kernel)
        keeper.start()
        _ = keeper.revoke(cause: "test")
        purgedWhileOpen.withLock { $0 = [] }
        _ = keeper.restore()
        #expect(zone.isOpen)
        #expect(purgedWhileOpen.withLock { $0 } == [false])
        keeper.stop()
    }

    /// A file whose lower storage hangs keeps its own keys, and no others.
    @Test func aFileThatHangsKeepsNoOthersKeys() throws {
        let test = try TestVolume()
        let (hung, other) = (try test.create("hung"), try test.create("other"))
        for file in [hung, other] { try file.write([1, 2, 3]) }
        let (volume, zone, inodes) = (test.volume, try test.volume.zone(.root), [hung.inode, other.inode])
        let isOtherFree = Mutex(false)
        let revoked = DispatchGroup()
        FaultInjection.arm(nth: 1, of: [.pwrite]) { [self] in
            DispatchQueue.global().async(group: revoked) {
                _ = zone.drain(.keyRevoked)
                _ = volume.settle(inodes)
                zone.close(.keyRevoked)
                _ = volume.forgetKeys(of: inodes)
            }
            let isFree = wait { volume.keysHeld(by: [inodes[1]]) == 0 }
            isOtherFree.withLock { $0 = isFree }
        }
        try? hung.write([2, 2, 2], at: 1)
        FaultInjection.disarm()
        revoked.wait()
        #expect(isOtherFree.withLock { $0 })
        #expect(wait { volume.keysHeld(by: inodes) == 0 })
        for file in [hung, other] { file.close() }
    }

    /// A rotation that hung when its zone was closed ends as the zone is about to open again, under keys from before: those are not used.
    @Test func aRotationEndsWhileItsZoneComesBack() throws {
        let test = try TestVolume()
        try test.write("file", [1, 2, 3])
        let isRestoring = Mutex(false)
        let (purging, rotated, restored) = (
            DispatchSemaphore(value: 0), DispatchSemaphore(value: 0), DispatchSemaphore(value: 0)
        )
        let kernel = Kernel { _ in
            // Once: the keys were unwrapped, and are not installed yet.
            let isFirst = isRestoring.withLock { isRestoring in
                defer { isRestoring = false }
                return isRestoring
            }
            if isFirst {
                purging.signal()
                _ = rotated.wait(timeout: .now() + 10)
            }
            return true
        }
        let keeper = try keeper(
            test, Events(), timing: LeaseTiming(probeSeconds: 60, leaseSeconds: 600), kernel: kernel)
        keeper.start()
        FaultInjection.arm(nth: 1, of: [.fsync]) {
            _ = keeper.revoke(cause: "test")
            isRestoring.withLock { $0 = true }
            DispatchQueue.global().async {
                _ = keeper.restore()
                restored.signal()
            }
            _ = purging.wait(timeout: .now() + 10)
        }
        let version = try test.mount.rotateKEK(.root, editing: RewrapTests.editing(test))
        FaultInjection.disarm()
        rotated.signal()
        #expect(restored.wait(timeout: .now() + 20) == .success)
        #expect(keeper.condition.state == "open")
        #expect(try test.volume.zone(.root).keys().activeKEK.version == version)
        try test.mount.rewrap(.root, control: SweepControl())
        keeper.stop()
        // The keeper holds the mount.
        try test.crash()
        #expect(try test.mount.coverage(.root).keks.keys.map { $0 } == [version])
    }
}
