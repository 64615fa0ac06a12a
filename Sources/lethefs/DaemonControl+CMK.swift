import ControlPlane
import FoundationEssentials
import KeyManagement
import VolumeEngine
import VolumeFormat

extension ControlVerb {
    /// `zone`, `uri` (as the zone's keyring names the CMK), `state`: a key state that an operator brings about, with its time; `shown` = 1:
    /// its owner has said so.
    static let cmkState = ControlVerb("cmk-state")
    /// `zone`: what a revocation would take away now.
    static let impact = ControlVerb("impact")
}

/// What programs would lose with a zone, as the daemon sees it.
struct ZoneImpact: Codable {
    var zone: UInt32
    /// "" for the root's; `nil` where this host does not know it.
    var path: String?
    var mountPoint: String
    var lower: String
    /// "major:minor" of the mount.
    var device: String?
    var state: String
    var knownInodes: Int
    var openFiles: Int
    /// A change at the owner is seen after this at the latest, if the owner answers.
    var probeSeconds: Double
    /// Without an answer keys go after this at the latest.
    var leaseSeconds: Double
}

extension DaemonControl {
    static let cmkHandlers: [ControlVerb: Handler] = [
        .cmkState: { services, arguments in try services.noteCMKState(arguments) },
        .impact: { services, arguments in try services.impact(arguments) },
    ]
}

extension [StateChange] {
    /// Notes what an operator is about to bring about; or, with `isShown`, what the owner says has come of it.
    mutating func note(_ state: KeyState, isShown: Bool) {
        if isShown { correct(to: state, at: Volume.now) } else { enter(state, at: Volume.now) }
    }
}

extension DaemonServices {
    /// In the keyring's history. A zone that is closed has no key to seal its keyring with, and fails.
    func noteCMKState(_ arguments: [String: String]) throws -> Done {
        let id = try zone(arguments)
        guard let state = KeyState.allCases.first(where: { $0.name == arguments["state"] }), let uri = arguments["uri"]
        else { throw Failure(.invalid, "the request to note a key's state lacks something") }
        guard !request.readOnly else { throw Failure(.storage, "\(request.mountPoint) is mounted read-only") }
        try administration.withLock { _ in
            guard mount.keyring(id)?.cmks.contains(where: { $0.uri == uri }) == true else {
                throw Failure(.invalid, "zone \(id.rawValue) has no such CMK")
            }
            try mount.changeKeyring(id) { (keyring, keys) throws(VolumeError) in
                for index in keyring.cmks.indices where keyring.cmks[index].uri == uri {
                    keyring.cmks[index].history.note(state, isShown: arguments["shown"] == "1")
                }
                return keys
            }
        }
        log.notice("zone \(id.rawValue): its CMK is noted as \(state.name)")
        return Done()
    }

    func impact(_ arguments: [String: String]) throws -> ZoneImpact {
        let keeper = try keeper(arguments)
        let id = keeper.zone.id
        let inodes = mount.volume.retainInodes(of: id)
        defer { mount.volume.release(inodes) }
        let timing = keepers.timing(id)
        return ZoneImpact(
            zone: id.rawValue, path: listedZones().first { $0.status.zone == id.rawValue }?.path,
            mountPoint: request.mountPoint, lower: request.lower,
            device: session.connection.map { "\($0.major):\($0.minor)" }, state: keeper.condition.state,
            knownInodes: inodes.count, openFiles: mount.volume.openCount(inodes), probeSeconds: timing.probeSeconds,
            leaseSeconds: timing.leaseSeconds + timing.graceSeconds)
    }
}
