import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import Storage
import VolumeEngine
import VolumeFormat

/// Crypto-shredding on the daemon's side. The command deletes through the mount in between, so that the kernel and the programs see it
/// as any deletion, with the rights of whoever asks.
extension Rotation {
    /// What was destroyed, for the certificate.
    struct Shredding: Codable, Sendable {
        var volume: String
        var zone: UInt32
        /// KEK versions destroyed in the keyring and in the token.
        var destroyed: [UInt32]
        var versionKeysDestroyed: Int
        /// KEK versions that an old copy of the keyring was tried to open with in vain.
        var refused: [UInt32]
        var activeKEK: UInt32
        var survivorsRewrapped: UInt64
        var keyringGeneration: UInt64
        /// The token: manufacturer, model, serial, label.
        var tokens: [[String: String]]
        var cmks: [String]
        var seconds: Double
    }

    struct Zones: Codable, Sendable {
        var zones: [UInt32]
    }

    func zone(of path: String) throws -> ZoneID {
        try reporting {
            let inode = try mount.volume.resolve(path)
            defer { mount.volume.forget(inode, count: 1) }
            return try mount.volume.zone(of: inode)
        }
    }

    /// The zones of what is deleted with a path: of a directory, also those that have their roots below.
    private func zones(of path: String) throws -> Set<ZoneID> {
        do {
            return try reporting {
                let inode = try mount.volume.resolve(path)
                defer { mount.volume.forget(inode, count: 1) }
                guard inode.kind == .directory else { return [try mount.volume.zone(of: inode)] }
                return try sweeps.run(.root, .coverage) { try mount.zones(of: inode, control: $0) }
            }
        } catch var failure as Failure {
            failure.meaning = "Which zones' keys would have to go is not known. Nothing was deleted."
            failure.remedy = "restore zones that are revoked; or shred what lies in them, or beside them, by itself"
            throw failure
        }
    }

    private func zones(of paths: [String]) throws -> Set<ZoneID> {
        try paths.reduce(into: []) { $0.formUnion(try zones(of: $1)) }
    }

    /// Notes the shredding, for a command that deletes then: `process`. One at a time deletes in a zone.
    func beginShredding(_ paths: [String], by process: Int32) throws -> Zones {
        guard !paths.isEmpty else { throw Failure(.invalid, "no paths") }
        let zones = try zones(of: paths)
        try claim(zones, for: process)
        do {
            try requireNothingUnderWay(zones)
            try reporting {
                // One that was interrupted does not go on meanwhile: what is deleted after this is not its.
                try sweeps.run(Array(zones), .shred) { _ in try note(zones, of: paths) }
            }
        } catch {
            shreddings.giveBack(zones, of: process)
            throw error
        }
        return Zones(zones: zones.map(\.rawValue).sorted())
    }

    private func claim(_ zones: Set<ZoneID>, for process: Int32) throws {
        guard let (zone, other) = shreddings.take(zones, for: process) else { return }
        throw Failure(
            .inUse, "another shred (pid \(other)) deletes in zone \(zone.rawValue)",
            meaning: "One at a time does, so that each certificate says what was its. Nothing was deleted.",
            remedy: "wait for it and repeat the command; or name all paths in one")
    }

    private func requireNothingUnderWay(_ zones: Set<ZoneID>) throws {
        let moving = mount.assignments.first { zones.contains($0.zone) || $0.work.source.map(zones.contains) == true }
        if let moving {
            // Its files' headers are wrapped by the KEKs of two zones, and one of them alone would be destroyed.
            throw Failure(
                .inUse, "a tree is on its way to zone \(moving.zone.rawValue)", meaning: "Nothing was deleted.",
                remedy: "wait for it; reencrypt --status  shows it")
        }
        for zone in zones where sweeps.isRunning(zone) {
            throw Failure(.inUse, "a sweep is under way in zone \(zone.rawValue)", meaning: "Nothing was deleted.")
        }
    }

    /// From the notes on no zone is made in these, and no tree goes to another. What came before, since it was looked which there
    /// are, is seen by looking again.
    private func note(_ zones: Set<ZoneID>, of paths: [String]) throws {
        for zone in zones { try mount.requireGuarded(zone) }
        var replaced: [ZoneID: [PendingWork]] = [:]
        do {
            for zone in zones { replaced[zone] = try mount.beginShredding(zone) }
            let more = try self.zones(of: paths).subtracting(zones)
            guard more.isEmpty else {
                throw Failure(
                    .inUse, "a zone has come into what is to be shredded just now", meaning: "Nothing was deleted.",
                    remedy: "repeat the command, which takes it along")
            }
        } catch {
            for (zone, notes) in replaced { try? mount.cancelShredding(zone, restoring: notes, editing: editing) }
            throw error
        }
    }

    func finishShredding(
        _ zone: ZoneID, _ asked: SanitizationCertificate.Asked, by process: Int32
    ) throws -> SignedCertificate {
        guard mount.keyring(zone) != nil else { throw unknown(zone) }
        try claim([zone], for: process)
        defer { shreddings.giveBack([zone], of: process) }
        let start = SweepClock.now
        return try reporting {
            let shredded = try sweeps.run(zone, .shred) {
                try mount.finishShredding(zone, editing: editing, control: $0)
            }
            return try certify(zone, shredded, asked, seconds: SweepClock.now - start)
        }
    }

    /// A shredding whose command is gone: what it deleted is not known here, but what was destroyed is. The certificate is kept on this
    /// host, since nobody waits for it.
    func resumeShredding(_ zone: ZoneID, _ work: PendingWork) throws {
        let start = SweepClock.now
        let shredded = try sweeps.run(zone, .shred) { control -> VolumeMount.Shredded? in
            // A command has begun another one meanwhile, which includes it.
            guard mount.keyring(zone)?.pending.contains(work) == true else { return nil }
            return try mount.finishShredding(zone, resuming: work, editing: editing, control: control)
        }
        guard let shredded else { return }
        let asked = SanitizationCertificate.Asked(
            targets: ["not known: the command or the mount ended before the shredding did"],
            name: "uid \(geteuid())", host: AuditLog.hostName)
        let signed = try certify(zone, shredded, asked, seconds: SweepClock.now - start)
        let path = try host.writeCertificate(signed, mount.volume.description.volume)
        note("zone \(zone.rawValue): the certificate of the resumed shredding is \(path).json")
    }

    /// Records a shredding and makes its certificate.
    private func certify(
        _ zone: ZoneID, _ shredded: VolumeMount.Shredded, _ asked: SanitizationCertificate.Asked, seconds: Double
    ) throws -> SignedCertificate {
        note(
            "zone \(zone.rawValue): shredded: KEK "
                + shredded.destroyed.map { "v\($0.rawValue)" }.joined(separator: ", ") + " destroyed")
        recordShredding(zone, shredded, resumed: asked.deleted == nil)
        let cmks = mount.keyring(zone)?.cmks.filter(\.isInUse).map(\.uri) ?? []
        let tokens = cmks.map { uri in (try? roots.current.resolve(uri).describe().owner) ?? [:] }
        let shredding = Shredding(
            volume: "\(mount.volume.description.volume)", zone: zone.rawValue,
            destroyed: shredded.destroyed.map(\.rawValue), versionKeysDestroyed: shredded.versionKeys,
            refused: shredded.refused.map(\.rawValue), activeKEK: shredded.active.rawValue,
            survivorsRewrapped: shredded.rewrapped, keyringGeneration: shredded.generation, tokens: tokens,
            cmks: cmks, seconds: seconds)
        return try sign(SanitizationCertificate(asked, lower: lower, shredding))
    }

    private func recordShredding(_ zone: ZoneID, _ shredded: VolumeMount.Shredded, resumed: Bool) {
        audit?.append(
            .shredded, zone: zone,
            [
                "destroyed": shredded.destroyed.map { "\($0.rawValue)" }.joined(separator: ","),
                "active": "\(shredded.active.rawValue)", "versionKeys": "\(shredded.versionKeys)",
                "resumed": resumed ? "yes" : "no",
            ])
    }

    /// By the key beside the root zone's CMK, where there is one.
    private func sign(_ certificate: SanitizationCertificate) throws -> SignedCertificate {
        let statement = try certificate.statement
        var signed = SignedCertificate(certificate: certificate, statement: String(decoding: statement, as: UTF8.self))
        if let audit, let signature = audit.sign(Array(statement)) {
            signed.key = signature.keyID
            signed.signature = Data(signature.bytes).base64EncodedString()
            signed.publicKeys = audit.publicKeys.map { Data($0).base64EncodedString() }
        }
        return signed
    }
}
