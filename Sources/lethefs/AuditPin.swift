import CLinux
import ControlPlane
import FoundationEssentials
import VolumeFormat

/// What this host remembers of a volume's audit log: the keys that sign it, and how far it went. The lower storage cannot take
/// it back: an older log put in place of a newer one is found by it, and so is one of another key.
struct AuditPin: Codable, Equatable {
    /// SubjectPublicKeyInfo, base64.
    var keys: [String]
    /// The last checkpoint that this host saw, and its hash (hexadecimal).
    var sequence: UInt64
    var hash: String
    /// Where in the log it ends; not in memories of older versions.
    var end: UInt64?

    /// `nil` where no checkpoint is remembered.
    var head: AuditLog.Head? {
        guard sequence > 0, let bytes = [UInt8](hexadecimal: hash) else { return nil }
        return AuditLog.Head(sequence: sequence, hash: bytes, end: end ?? 0, keys: publicKeys)
    }

    var publicKeys: [[UInt8]] { keys.compactMap { Base64.decode($0) } }
}

extension Host {
    private func auditPath(_ volume: UniqueID) -> String { "\(home)/audit/\(volume).json" }

    func readAuditPin(_ volume: UniqueID) -> AuditPin? {
        guard let data = FileManager.default.contents(atPath: auditPath(volume)) else { return nil }
        return try? JSONDecoder().decode(AuditPin.self, from: data)
    }

    /// False when it cannot be written: the log is as good, and this host knows less of it. What it knows is never taken back for an
    /// earlier record, unless the log itself says that the later one is not there.
    @discardableResult
    func writeAuditPin(_ volume: UniqueID, _ head: AuditLog.Head) -> Bool {
        let known = readAuditPin(volume)
        if let remembered = known?.head, remembered.sequence > head.sequence, !head.isBehindDamage { return false }
        var keys = known?.keys ?? []
        // A process without the KEK does not know the keys.
        if !head.keys.isEmpty { keys = head.keys.map { Base64.encode($0) } }
        let pin = AuditPin(keys: keys, sequence: head.sequence, hash: head.hash.hexadecimal, end: head.end)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let path = auditPath(volume)
        do {
            try makeDirectory("audit")
            try encoder.encode(pin).write(to: URL(filePath: path), options: .atomic)
            return chmod(path, 0o600) == 0
        } catch { return false }
    }
}

extension [UInt8] {
    var hexadecimal: String { map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }

    /// `nil` unless it is hexadecimal.
    init?(hexadecimal text: String) {
        let digits = text.utf8.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
        guard digits.count == text.utf8.count, digits.count.isMultiple(of: 2) else { return nil }
        self = stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }
}
