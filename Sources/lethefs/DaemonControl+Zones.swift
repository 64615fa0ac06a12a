import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import Storage
import VolumeEngine
import VolumeFormat

extension ControlVerb {
    static let zones = ControlVerb("zones")
    /// The number of the zone to which `path` leads.
    static let zoneOf = ControlVerb("zone-of")
    /// `path`, `roots` (a JSON array), `policy`, `mode`, `uid`, `gid`; or `existing` = 1 instead of the last three: the directory is
    /// there, and is assigned to the zone afterwards.
    static let zoneCreate = ControlVerb("zone-create")
    /// `path`, `zone` or `root` (the path of a zone's root), `rate`, `yields` = 1, `background` = 1.
    static let zoneAssign = ControlVerb("zone-assign")
}

/// A zone and where it was made, as far as this host knows.
struct ListedZone: Codable {
    var path: String?
    var status: ZoneStatus
}

extension DaemonControl {
    static let zoneHandlers: [ControlVerb: Handler] = [
        .probe: { services, arguments in
            try services.condition(try services.keeper(arguments)) { $0.probeNow() }
        },
        .revoke: { services, arguments in
            try services.condition(try services.keeper(arguments)) { $0.revoke(cause: "by command") }
        },
        .restore: { services, arguments in
            try services.condition(try services.keeper(arguments)) { $0.restore() }
        },
        .zones: { services, _ in services.listedZones() },
        .zoneOf: { services, arguments in try services.zone(arguments).rawValue },
        .zoneCreate: { services, arguments in
            arguments["existing"] == "1" ? try services.createZoneAside(arguments) : try services.createZone(arguments)
        },
        .zoneAssign: { services, arguments in try services.assign(arguments) },
    ]
}

extension DaemonServices {
    /// The keeper of the zone that `zone` numbers, or to which `path` leads.
    func keeper(_ arguments: [String: String]) throws -> ZoneKeeper {
        let id = try zone(arguments)
        guard let keeper = keepers[id] else {
            throw Failure(
                .invalid, "there is no zone \(id.rawValue)", remedy: "lethefs zone list \(request.mountPoint)")
        }
        return keeper
    }

    /// Has the keeper do something, and gives how the zone stands then.
    func condition(
        _ keeper: ZoneKeeper, _ action: (ZoneKeeper) -> ZoneKeeper.Outcome?
    ) throws -> ZoneKeeper.Condition {
        switch action(keeper) {
        case .condition(let condition): return condition
        case .failure(let error):
            // A refusal has closed the zone, which is what the caller wanted to see; an outage is the caller's news.
            if error.isRefusal { return keeper.condition }
            throw Failure(error, lower: request.lower)
        case nil:
            throw Failure(
                .rootUnreachable, "zone \(keeper.zone.id.rawValue) has not come to an end of it in a minute",
                meaning: "The CMK's owner does not answer, or the lower storage hangs.", remedy: "see \(logPath)")
        }
    }

    /// Makes a directory that is not there yet the root of a new zone.
    func createZone(_ arguments: [String: String]) throws -> ListedZone {
        let volume = mount.volume
        let path = arguments["path"] ?? ""
        guard let name = path.split(separator: "/").last, let mode = mode_t(arguments["mode"] ?? ""),
            let uid = uid_t(arguments["uid"] ?? ""),
            let gid = gid_t(arguments["gid"] ?? "")
        else { throw Failure(.invalid, "the request to make a zone lacks something") }
        guard !request.readOnly else { throw Failure(.storage, "\(request.mountPoint) is mounted read-only") }
        return try administration.withLock { _ in
            let parentPath = path.split(separator: "/").dropLast().joined(separator: "/")
            do {
                let parent = try volume.resolve(parentPath)
                defer { volume.release([parent]) }
                try requireAbsent(path)
                try mount.requireNotShredding(parent)
                let made = try addZone(arguments, at: path)
                let text = Array(name.utf8)
                let entry: Entry
                do {
                    entry = try text.withUnsafeBytes { (bytes) throws(Errno) in
                        try volume.makeDirectory(
                            parent, bytes, mode: mode, Credentials(uid: uid, gid: gid), zone: made.keyring.zone)
                    }
                } catch let error as Errno where error == .busy {
                    // A shredding has begun meanwhile.
                    try mount.requireNotShredding(parent)
                    throw error
                }
                volume.release([entry.inode])
                // The kernel may know that there was nothing of that name.
                session.kernelCache.forget(text, in: parent.node)
                return try begin(made.keyring, at: path)
            } catch let error as Errno {
                throw Failure(.invalid, "\(request.mountPoint)/\(path): \(error.message)", meaning: "No zone was made.")
            }
        }
    }

    /// A keyring for a new zone, known to this host and to the volume; no directory belongs to it yet.
    private func addZone(
        _ arguments: [String: String], at path: String?
    ) throws -> (keyring: ZoneKeyring, keys: ZoneKeys) {
        let uris = (try? JSONDecoder().decode([String].self, from: Data((arguments["roots"] ?? "").utf8))) ?? []
        let policy: ZoneKeyring.Policy = arguments["policy"] == "all-of" ? .allOf : .anyOf
        guard !uris.isEmpty, uris.count <= 16 else {
            throw Failure(.invalid, "the request to make a zone lacks something")
        }
        var cmks: [any CustomerMasterKey] = []
        for uri in uris {
            do throws(RootError) { cmks.append(try Roots.open(uri)) } catch {
                throw Failure(error, uri: Roots.withoutPIN(uri))
            }
        }
        for uri in uris { roots.add(uri) }
        let made = try mount.makeKeyring(policy: policy, cmks: cmks)
        let volume = mount.volume.description.volume
        var record = host.readRecord(volume) ?? Host.VolumeRecord(roots: [])
        record.roots += uris.map(Roots.kept).filter { !record.roots.contains($0) }
        if let path { record.zones = (record.zones ?? [:]).merging([path: made.keyring.zone.rawValue]) { $1 } }
        try host.writeRecord(volume, record)
        try mount.addZone(made.keyring, made.keys)
        return made
    }

    /// From here on the zone's keys are kept under a lease.
    private func begin(_ keyring: ZoneKeyring, at path: String) throws -> ListedZone {
        keepers.add(try mount.volume.zone(keyring.zone))
        log.notice("zone \(keyring.zone.rawValue) made")
        audit?.append(
            .zoneCreated, zone: keyring.zone,
            ["path": path].merging(AuditLog.cmkFields(keyring.cmks.map(\.uri))) { $1 })
        return ListedZone(path: path, status: ZoneStatus(keyring, keepers[keyring.zone]?.condition))
    }

    /// Makes a zone for a directory that is there; `assign` then brings the directory into it. First it is looked whether it could.
    func createZoneAside(_ arguments: [String: String]) throws -> ListedZone {
        let path = arguments["path"] ?? ""
        guard !request.readOnly else { throw Failure(.storage, "\(request.mountPoint) is mounted read-only") }
        return try administration.withLock { _ in
            try withDirectory(path) { directory in
                _ = try mount.examineAssignment(directory, to: nil)
                // Until it is assigned the path is known as what it was.
                let made = try addZone(arguments, at: nil)
                return try begin(made.keyring, at: path)
            }
        }
    }

    /// Brings a directory, and all below it, into another zone.
    func assign(_ arguments: [String: String]) throws -> Rotation.AssignReport {
        let path = arguments["path"] ?? ""
        guard !request.readOnly else { throw Failure(.storage, "\(request.mountPoint) is mounted read-only") }
        let named = arguments["root"].map { ["path": $0] } ?? ["zone": arguments["zone"] ?? ""]
        let destination = try zone(named)
        guard mount.keyring(destination) != nil else { throw rotation.unknown(destination) }
        return try withDirectory(path) { directory in
            try rotation.assign(
                directory, path: path, to: destination, rate: UInt32(arguments["rate"] ?? "0") ?? 0,
                yields: arguments["yields"] == "1", background: arguments["background"] == "1")
        }
    }

    private func withDirectory<R>(_ path: String, _ body: (Inode) throws -> R) throws -> R {
        let directory: Inode
        do throws(Errno) { directory = try mount.volume.resolve(path) } catch {
            throw Failure(.invalid, "\(request.mountPoint)/\(path): \(error.message)", meaning: "Nothing was changed.")
        }
        defer { mount.volume.release([directory]) }
        return try body(directory)
    }

    private func requireAbsent(_ path: String) throws {
        do {
            let inode = try mount.volume.resolve(path)
            mount.volume.release([inode])
            throw Errno.exists
        } catch let error as Errno {
            guard error == .noEntry else { throw error }
        }
    }
}
