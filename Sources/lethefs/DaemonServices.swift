import ControlPlane
import FoundationEssentials
import FuseServer
import Logging
import Synchronization
import VolumeEngine

/// What a daemon's verbs work with.
final class DaemonServices: Sendable {
    let mount: VolumeMount
    let request: MountRequest
    let host: Host
    let roots: TrustedRoots
    let log: Logger
    let damage: DamageLog
    let session: MountSession
    /// `nil` on a read-only mount, and where the log could not be opened.
    let audit: AuditLog?
    /// The highest epoch that this host saw, where the volume is older.
    let rolledBackFrom: UInt64?
    let startedAt = Date.now
    let guardian: Guardian
    let keepers: ZoneKeepers
    let sweeps: Sweeps
    let rotation: Rotation
    let cryptoperiods: CryptoperiodKeeper
    /// One administrative change at a time: held over calls to the CMK's owner, and by nothing that programs wait for. Outermost.
    let administration = Mutex<Void>(())
    /// Of the online check that is running, if one is. A leaf lock.
    let checkProgress = Mutex<CheckProgress?>(nil)

    init(
        mount: VolumeMount, request: MountRequest, host: Host, roots: TrustedRoots, log: Logger, damage: DamageLog,
        session: MountSession, guardian: Guardian, audit: AuditLog?
    ) {
        self.mount = mount
        self.request = request
        self.host = host
        self.roots = roots
        self.log = log
        self.damage = damage
        self.session = session
        self.guardian = guardian
        self.audit = audit
        rolledBackFrom = host.noteMount(mount, request, log)
        keepers = ZoneKeepers(
            mount: mount, request: request, roots: roots, log: log, session: session, guardian: guardian, audit: audit)
        let sweeps = Sweeps()
        self.sweeps = sweeps
        let rotation = Rotation(
            mount: mount, roots: roots, host: host, lower: request.lower, sweeps: sweeps, audit: audit
        ) { log.notice("\($0)") }
        self.rotation = rotation
        cryptoperiods = CryptoperiodKeeper(rotation, log: log)
    }

    var logPath: String { host.logPath(mount.volume.description.volume) }
}

/// The root URIs that this daemon trusts; commands may add some while it runs.
final class TrustedRoots: Sendable {
    private let roots: Mutex<Roots>
    init(_ roots: Roots) { self.roots = Mutex(roots) }

    var current: Roots { roots.withLock { $0 } }

    func add(_ uri: String) {
        roots.withLock { roots in
            if !roots.trusted.contains(uri) { roots = Roots(trusted: roots.trusted + [uri], names: roots.names) }
        }
    }
}
