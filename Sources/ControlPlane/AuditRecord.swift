import Ciphers
import FoundationEssentials
import VolumeFormat

/// One line of the audit log (AUDIT.md §2). Pure: no I/O.
package struct AuditRecord: Equatable, Sendable {
    /// From 1, without gaps.
    package var sequence: UInt64
    /// `AuditTime`'s text.
    package var time: String
    /// An `AuditKind`'s raw value, or one that only a newer program knows.
    package var kind: String
    package var zone: UInt32?
    package var fields: [String: String]
    /// Hash of the record before; zeros for the first.
    package var previous: [UInt8]
    package var hash: [UInt8]

    package static let formatVersion: UInt16 = 1
    package static let maximumFields = 32
    package static let maximumKey = 64
    /// Of one value, in bytes.
    package static let maximumValue = 1024
    /// Of all keys and values together, in bytes.
    package static let maximumContent = 8192
    /// Longest line, its newline included. Escapes make six bytes of one at most.
    package static let maximumLine = 64 << 10
    package static let noHash = [UInt8](repeating: 0, count: SHA256.size)

    /// A new record. Fields beyond the bounds are cut.
    package init(
        sequence: UInt64, time: String, kind: String, zone: UInt32?, fields: [String: String], previous: [UInt8]
    ) throws(CipherError) {
        self.sequence = sequence
        self.time = time
        self.kind = kind
        self.zone = zone
        self.fields = Self.bounded(fields)
        self.previous = previous
        hash = []
        hash = try computedHash()
    }

    /// SHA-256 of the canonical encoding: what `hash` has to be.
    package func computedHash() throws(CipherError) -> [UInt8] { try SHA256.digest(canonical) }

    /// The bytes that are hashed.
    package var canonical: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Array("LETHEAUD".utf8))
        writer.append(Self.formatVersion)
        writer.append(sequence)
        writer.append(prefixed: Array(time.utf8))
        writer.append(prefixed: Array(kind.utf8))
        writer.append(UInt8(zone == nil ? 0 : 1))
        writer.append(zone ?? 0)
        writer.append(UInt16(fields.count))
        for (key, value) in sortedFields {
            writer.append(prefixed: Array(key.utf8))
            writer.append(prefixed: Array(value.utf8))
        }
        writer.append(contentsOf: previous)
        return writer.bytes
    }

    /// By the keys' bytes: they are ASCII.
    package var sortedFields: [(key: String, value: String)] { fields.sorted { $0.key < $1.key } }

    /// The line, without its newline. There is one way only to write a record.
    package var line: String {
        let zone = zone.map { "\"zone\":\($0)," } ?? ""
        let fields = sortedFields.map { "\(AuditText.quoted($0.key)):\(AuditText.quoted($0.value))" }
        return "{\"sequence\":\(sequence),\"time\":\(AuditText.quoted(time)),\"kind\":\(AuditText.quoted(kind)),\(zone)"
            + "\"fields\":{\(fields.joined(separator: ","))},\"previous\":\"\(AuditText.hex(previous))\","
            + "\"hash\":\"\(AuditText.hex(hash))\"}"
    }

    private struct JSON: Decodable {
        var sequence: UInt64
        var time: String
        var kind: String
        var zone: UInt32?
        var fields: [String: String]
        var previous: String
        var hash: String
    }

    /// Parses a line without its newline; `nil` for any bytes that `line` would not give. The hash is not checked here.
    package init?(line: [UInt8]) {
        guard line.count < Self.maximumLine, let json = try? JSONDecoder().decode(JSON.self, from: Data(line)),
            json.sequence > 0, json.time.utf8.count <= 32, json.kind.utf8.count <= Self.maximumKey,
            json.fields.count <= Self.maximumFields, json.fields.keys.allSatisfy(Self.isKey),
            json.fields.values.allSatisfy({ $0.utf8.count <= Self.maximumValue }),
            let previous = AuditText.bytes(hex: json.previous, count: SHA256.size),
            let hash = AuditText.bytes(hex: json.hash, count: SHA256.size)
        else { return nil }
        sequence = json.sequence
        time = json.time
        kind = json.kind
        zone = json.zone
        fields = json.fields
        self.previous = previous
        self.hash = hash
        // Another order, spacing, or a member more would not change the hash.
        guard Array(self.line.utf8) == line else { return nil }
    }

    /// Whether a field may have this name: letters, digits and dashes.
    package static func isKey(_ key: String) -> Bool {
        (1...maximumKey).contains(key.utf8.count)
            && key.utf8.allSatisfy { byte in
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || byte == UInt8(ascii: "-")
            }
    }

    private static func bounded(_ fields: [String: String]) -> [String: String] {
        var result: [String: String] = [:]
        var left = maximumContent
        for (key, value) in fields.sorted(by: { $0.key < $1.key }).prefix(maximumFields) {
            precondition(isKey(key), "a field's name is letters, digits and dashes")
            let kept = AuditText.bounded(value, min(maximumValue, max(3, left)))
            left -= key.utf8.count + kept.utf8.count
            result[key] = kept
        }
        return result
    }
}
