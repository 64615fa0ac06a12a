import ControlPlane
import FoundationEssentials
import FuseServer
import KeyManagement
import Logging
import Synchronization
import VolumeEngine
import VolumeFormat

/// The keepers of a mount's zones.
final class ZoneKeepers: Sendable {
    private let mount: VolumeMount
    private let request: MountRequest
    private let roots: TrustedRoots
    private let log: Logger
    private let session: MountSession
    private let guardian: Guardian
    private let audit: AuditLog?
    private let keepers = Mutex<[ZoneID: ZoneKeeper]>([:])
    /// When each open zone's keys have to go at the latest, on `BootClock`.
    private let leases = Mutex<[ZoneID: Double]>([:])

    init(
        mount: VolumeMount, request: MountRequest, roots: TrustedRoots, log: Logger, session: MountSession,
        guardian: Guardian, audit: AuditLog?
    ) {
        self.mount = mount
        self.request = request
        self.roots = roots
        self.log = log
        self.session = session
        self.guardian = guardian
        self.audit = audit
    }

    subscript(_ zone: ZoneID) -> ZoneKeeper? { keepers.withLock { $0[zone] } }

    var all: [ZoneKeeper] { keepers.withLock { Array($0.values) }.sorted { $0.zone.id.rawValue < $1.zone.id.rawValue } }

    /// A keeper for each zone there is.
    func start() { for zone in mount.volume.allZones { add(zone) } }

    func add(_ zone: Zone) {
        let lower = request.lower
        let keeper = ZoneKeeper(
            zone, of: mount, timing: timing(zone.id), kernel: session.kernelCache, mountPoint: request.mountPoint,
            device: session.connection?.device, describe: { Failure($0, lower: lower).what },
            onLease: { [self] in note(lease: $1, of: $0) }, onEvent: { [self] in note($0) })
        keepers.withLock { $0[zone.id] = keeper }
        keeper.start()
    }

    func stop() { for keeper in all { keeper.stop() } }

    /// When the first of the open zones' leases ends; `nil` when none is open.
    var firstLeaseEnd: Double? { leases.withLock { $0.values.min() } }

    private func note(lease end: Double?, of zone: ZoneID) {
        leases.withLock { leases in
            leases[zone] = end
            guardian.leaseEnds(at: leases.values.min())
        }
    }

    private func note(_ event: ZoneKeeper.Event) {
        audit?.note(event)
        switch event {
        case .outage(let zone, let error):
            log.warning("zone \(zone.rawValue): \(Failure(error, lower: request.lower).what); the lease runs on")
        case .renewed: break
        case .outageOver(let zone): log.notice("zone \(zone.rawValue): the CMK's owner answers again")
        case .revoked(let report):
            log.notice(
                """
                zone \(report.zone) revoked: \(report.cause); \(report.inodes) inodes, \(report.openFiles) open files; drained at \
                \(report.drainedMilliseconds) ms\(report.isDrained ? "" : " (NOT ALL)"), keys gone at \
                \(report.closedMilliseconds) ms, purged at \(report.purgedMilliseconds) ms\
                \(report.isComplete ? "" : " (NOT COMPLETE)")\(report.areRequestsWiped ? "" : " (a request is under way)"), canary \(report.canary) at \(report.canaryMilliseconds) ms
                """)
        case .restored(let zone, let seconds):
            log.notice("zone \(zone.rawValue) restored after \((seconds * 10).rounded() / 10) s")
        }
    }

    /// As the mount options say, or by where the zone's CMKs live.
    func timing(_ zone: ZoneID) -> LeaseTiming {
        let inUse = mount.keyring(zone)?.cmks.filter(\.isInUse) ?? []
        let isLocal = !inUse.isEmpty && inUse.allSatisfy { roots.current.isLocal($0.uri) }
        var timing = isLocal ? LeaseTiming.local : LeaseTiming.network
        timing.graceSeconds = Double(mount.volume.description.settings[.graceSeconds] ?? 0)
        if let seconds = request.probeSeconds { timing.probeSeconds = seconds }
        if let seconds = request.leaseSeconds { timing.leaseSeconds = seconds }
        return timing
    }
}

extension Roots {
    /// Libraries of tokens that live in this machine, by the beginnings of their descriptions.
    private static let localLibraries = [
        "Implementation of PKCS11", "NSS Internal Crypto", "openCryptoki", "TPM2.0 Cryptoki",
    ]

    /// True when the CMK's owner is known to be a token of this machine. Unknown ones count as across a network.
    func isLocal(_ named: String) -> Bool {
        guard let library = try? resolve(named).describe().owner["library"] else { return false }
        return Self.localLibraries.contains { library.hasPrefix($0) }
    }
}
