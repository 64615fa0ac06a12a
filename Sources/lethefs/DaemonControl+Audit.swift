import ControlPlane
import FoundationEssentials
import KeyManagement
import VolumeEngine
import VolumeFormat

/// What the root zone's KEK authenticates of the audit log.
struct AuditSeals: Codable {
    /// SubjectPublicKeyInfo, base64; `nil` where the list is not there, or not authentic.
    var keys: [String]?
    var sequence: UInt64?
    var hash: String?
    /// Seals that are there, and not authentic, or that should be there.
    var problems: [String] = []
    var remarks: [String] = []

    init(_ files: AuditFiles, _ zoneKeys: ZoneKeys) {
        switch files.keyList(zoneKeys) {
        case .authentic(let list): keys = list.keys.map { Base64.encode($0.publicKey) }
        case .refused: problems.append("the sealed key list is not authentic")
        case .missing: problems.append("the sealed key list is missing")
        }
        switch files.sealedHead(zoneKeys) {
        case .authentic(let head): (sequence, hash) = (head.sequence, head.hash.hexadecimal)
        case .refused: problems.append("the sealed head is not authentic")
        case .missing: problems.append("the sealed head is missing")
        }
    }
}

extension ControlVerb {
    /// The seals of the audit log, as the daemon's keys authenticate them.
    static let auditSeals = ControlVerb("audit-seals")
    /// `kind`, `fields` (a JSON object), perhaps `zone`: a record that only the command can tell of.
    static let auditNote = ControlVerb("audit-note")
}

extension DaemonControl {
    static let auditHandlers: [ControlVerb: Handler] = [
        .auditSeals: { services, _ in
            guard let keys = try? services.mount.volume.zone(.root).storingKeys() else {
                throw Failure(.keyRefused, "the root zone is revoked")
            }
            do throws(AuditError) {
                return AuditSeals(
                    try AuditFiles(volumeDirectory: services.mount.volumeDirectory, creating: false), keys)
            } catch { throw Failure(error) }
        },
        .auditNote: { services, arguments in
            guard let audit = services.audit, let kind = arguments["kind"].flatMap(AuditKind.init),
                AuditNote.kinds.contains(kind),
                let fields = try? JSONDecoder().decode(
                    [String: String].self, from: Data((arguments["fields"] ?? "{}").utf8)),
                fields.keys.allSatisfy(AuditRecord.isKey)
            else { throw Failure(.invalid, "the request for an audit record lacks something") }
            let zone = arguments["zone"].flatMap { UInt32($0) }.map { ZoneID(rawValue: $0) }
            guard audit.append(kind, zone: zone, fields) else {
                throw Failure(.storage, "the audit record waits for the lower storage", meaning: "It is tried again.")
            }
            return Done()
        },
    ]
}
