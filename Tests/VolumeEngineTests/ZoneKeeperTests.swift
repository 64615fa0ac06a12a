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

    private struct NoKernel: KernelCaching {
        func invalidateAttributes(_ nodes: [UInt64]) {}
        func purge(_ nodes: [UInt64]) {}
        func wipeRequests() -> Bool { true }
        func expireNames() -> Bool { true }
        func forget(_ name: [UInt8], in parent: UInt64) {}
    }

    private func keeper(
        _ test: TestVolume, _ events: Events, timing: LeaseTiming, device: dev_t? = nil
    ) throws -> ZoneKeeper {
        ZoneKeeper(
            try test.volume.zone(.root), of: test.mount, timing: timing, kernel: NoKernel(),
            mountPoint: test.temporary["mount"], device: device, describe: { "\($0)" }, onLease: { _, _ in },
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
}
