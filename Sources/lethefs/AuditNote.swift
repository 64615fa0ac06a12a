import ControlPlane
import FoundationEssentials
import KeyManagement
import VolumeEngine
import VolumeFormat

/// Records that a command leaves for what it did itself, such as to a CMK.
enum AuditNote {
    /// What a command may tell of; everything else is the daemon's to say.
    static let kinds: Set<AuditKind> = [
        .cmkDisabled, .cmkEnabled, .cmkRotated, .cmkDestroyed, .cmkChangeFailed, .policyChanged, .restoreAccepted,
    ]

    /// Adds a record to the volume's log: through its daemon, or, of a volume that is not mounted, directly. False when there is no log,
    /// or it could not be written; the caller says so, and what it did stands.
    static func leave(
        _ target: Target, _ kind: AuditKind, zone: ZoneID? = nil, _ fields: [String: String]
    ) -> Bool {
        precondition(kinds.contains(kind))
        switch target {
        case .mounted(let record, _):
            var arguments = ["kind": kind.rawValue]
            arguments["zone"] = zone.map { "\($0.rawValue)" }
            arguments["fields"] = (try? JSONEncoder().encode(fields)).map { String(decoding: $0, as: UTF8.self) }
            return (try? DaemonClient.ask(record, .auditNote, arguments, timeoutSeconds: 30, as: Done.self)) != nil
        case .lower(let lower): return leave(lower, kind, zone, fields)
        }
    }

    private static func leave(_ lower: String, _ kind: AuditKind, _ zone: ZoneID?, _ fields: [String: String]) -> Bool {
        let host = Host()
        guard let files = try? VolumeFiles(lower: lower), let description = try? files.readDescription().value,
            // Without the KEK no log is begun: nobody could tell it from a false one.
            let existing = try? AuditFiles(volumeDirectory: files.directory, creating: false),
            (try? existing.openLog()) != nil
        else { return false }
        let volume = description.volume
        let uris = (try? files.keyring(.root))?.cmks.map(\.uri) ?? []
        let roots = (try? Roots.of(files, given: [], host.readRecord(volume))) ?? Roots(trusted: [])
        let pin = host.readAuditPin(volume)
        let known = pin?.publicKeys ?? []
        var options = AuditLog.Options(volume: volume, keys: { nil }) { head in
            // Of the keys this process knows only the one that it signs with, and takes none of the others away.
            var head = head
            head.keys = []
            host.writeAuditPin(volume, head)
        }
        // Without the KEK nothing else tells an older log, or none, from the one that was there.
        options.remembered = pin?.head
        options.isExpected = description.settings[.audited] == 1
        let log = try? AuditLog.open(files.directory, options) { _ in
            // Without asking for the CMK: it may have been destroyed just now.
            for uri in uris {
                if let signer = try? roots.signer(beside: uri), known.contains(signer.publicKey) { return signer }
            }
            return nil
        }
        guard let log else { return false }
        let isDurable = log.append(kind, zone: zone, fields)
        log.close()
        return isDurable
    }
}
