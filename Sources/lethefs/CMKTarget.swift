import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import VolumeEngine
import VolumeFormat

/// A CMK that a command means, and every zone of this host that hangs on it.
struct CMKTarget {
    /// A zone whose keyring names the CMK.
    struct Place {
        /// The daemon that has it mounted; `nil` for a volume that is not.
        var daemon: RuntimeDirectory.Record?
        var lower: String
        var zone: UInt32
        var path: String?
        /// The CMK as this keyring names it.
        var named: String
        var history: [StateChange]

        /// It wraps the zone's KEKs; one that was rotated away does not.
        var isInUse: Bool { ZoneKeyring.CMK(uri: named, history: history).isInUse }

        var words: String {
            let place = daemon.map { $0.mountPoint + (path.map { $0.isEmpty ? "" : "/\($0)" } ?? "") } ?? lower
            return "zone \(zone) of \(place)"
        }
    }

    /// As the keyring, or the operator, names it.
    let named: String
    let roots: Roots
    let places: [Place]

    func open() throws -> any CustomerMasterKey {
        do throws(RootError) { return try roots.resolve(named) } catch {
            throw Failure(error, uri: Roots.withoutPIN(named))
        }
    }

    /// The CMKs of a URI; or of a lower directory, a mount point, or a path in a mount, those in use. `cmk` chooses one by URI or key
    /// label, and may name one that was rotated away.
    static func find(_ text: String, zone: UInt32?, cmk: String? = nil) throws -> [CMKTarget] {
        let mounted = try mountedPlaces()
        if text.contains(":"), access(text, F_OK) != 0 {
            return [
                CMKTarget(
                    named: text, roots: Roots(trusted: [text]), places: mounted.filter { Roots.means(text, $0.named) })
            ]
        }
        let own: [Place]
        let lower: String
        switch try Target(text) {
        case .mounted(let record, let inside):
            lower = record.lower
            let here = mounted.filter { $0.daemon?.pid == record.pid }
            let number = try zone ?? DaemonClient.ask(record, .zoneOf, ["path": inside], timeoutSeconds: 30)
            own = here.filter { $0.zone == number }
            guard !own.isEmpty else {
                throw Failure(
                    .invalid, "\(record.mountPoint) has no zone \(number)",
                    remedy: "lethefs zone list \(record.mountPoint)")
            }
        case .lower(let path):
            lower = path
            own = try storedPlaces(path, zone ?? 0)
        }
        let roots = try trusted(lower)
        let chosen = own.filter { place in cmk.map { Self.matches($0, place.named) } ?? place.isInUse }
        guard !chosen.isEmpty else {
            throw Failure(
                .keyNotFound, "none of the zone's CMKs is \(cmk ?? "known")", remedy: "lethefs cmk show \(text)")
        }
        return chosen.map { place in
            let others = mounted.filter { Roots.means(place.named, $0.named) }
            let isListed = others.contains { $0.lower == place.lower && $0.zone == place.zone }
            return CMKTarget(named: place.named, roots: roots, places: isListed ? others : [place] + others)
        }
    }

    private static func matches(_ given: String, _ named: String) -> Bool {
        given == named
            || (given.contains(":")
                ? Roots.means(given, named)
                : named.contains("object=\(given);")
                    || named.hasSuffix("object=\(given)") || named.contains("object=\(given)?"))
    }

    /// All zones of all mounts of this user's that answer.
    private static func mountedPlaces() throws -> [Place] {
        Host().runtime.records().flatMap { record -> [Place] in
            let zones: [ListedZone]? = try? DaemonClient.ask(record, .zones, timeoutSeconds: 10)
            return (zones ?? []).flatMap { listed in
                listed.status.cmks.map { cmk in
                    Place(
                        daemon: record, lower: record.lower, zone: listed.status.zone, path: listed.path,
                        named: cmk.uri,
                        history: (cmk.history ?? []).compactMap(\.change))
                }
            }
        }
    }

    private static func storedPlaces(_ lower: String, _ zone: UInt32) throws -> [Place] {
        do {
            return try VolumeFiles(lower: lower).keyring(ZoneID(rawValue: zone)).cmks.map {
                Place(daemon: nil, lower: lower, zone: zone, path: nil, named: $0.uri, history: $0.history)
            }
        } catch { throw Failure(error, lower: lower) }
    }

    private static func trusted(_ lower: String) throws -> Roots {
        do {
            let files = try VolumeFiles(lower: lower)
            let record = Host().readRecord(try files.readDescription().value.volume)
            if let roots = try Roots.of(files, given: [], record) { return roots }
        } catch let error as VolumeError { throw Failure(error, lower: lower) }
        throw Failure(
            .keyNotFound, "this host does not know the CMK of \(lower)",
            meaning: "What the volume itself names is not trusted to load a module.",
            remedy: "name the key by its URI")
    }
}

extension CMKTarget.Place {
    /// Notes the CMK's new state in the zone's keyring; with `isShown`, one that its owner has shown. What kept it from that, as a
    /// sentence; `nil` when it is noted.
    func note(_ state: KeyState, isShown: Bool, _ roots: Roots) -> String? {
        do {
            if let daemon {
                let asked = ["zone": "\(zone)", "uri": named, "state": state.name, "shown": isShown ? "1" : "0"]
                let _: Done = try DaemonClient.ask(daemon, .cmkState, asked, timeoutSeconds: 30)
                return nil
            }
            // The lock is held meanwhile, as by a mount.
            let mount = try VolumeMount(
                lower: lower, options: Volume.Options(),
                unlocking: KeyringUnlocking { (uri) throws(RootError) in try roots.resolve(uri) }
            ) { _ in }
            defer { try? mount.close() }
            try mount.changeKeyring(ZoneID(rawValue: zone)) { (keyring, keys) throws(VolumeError) in
                for index in keyring.cmks.indices where keyring.cmks[index].uri == named {
                    keyring.cmks[index].history.note(state, isShown: isShown)
                }
                return keys
            }
            return nil
        } catch let failure as Failure { return failure.what } catch let error as VolumeError {
            return Failure(error, lower: lower).what
        } catch { return "\(error)" }
    }
}
