import CLinux
import FoundationEssentials

/// What was sanitized, how, and how that was verified: the fields of NIST SP 800-88 Rev. 1, appendix G.
struct SanitizationCertificate: Codable {
    struct Media: Codable {
        var manufacturer = "see the lower storage's own records"
        var type = "logical: files of a LetheFS volume"
        /// The volume's UUID.
        var serialNumber: String
        var source: String
    }

    struct Sanitization: Codable {
        var type = "Purge"
        var method = "Cryptographic Erase"
        var detail: String
        var tool: String
        var verification: String
    }

    struct Person: Codable {
        var name: String
        var host: String
        var date: Date
        /// Left for the hand of whoever is responsible.
        var title = ""
        var location = ""
        var phone = ""
    }

    struct Counts: Codable {
        var files: Int
        var directories: Int
        var others: Int
        var bytes: UInt64
        var filesWithOtherNames: Int
    }

    var media: Media
    /// As they were given to the command.
    var targets: [String]
    /// Not there where the command that deleted was gone before the shredding ended.
    var deleted: Counts?
    var sanitization: Sanitization
    var keys: [Rotation.Shredding]
    var residual: [String]
    var person: Person

    /// What the command tells the daemon: what it deleted, for whom.
    struct Asked: Codable {
        var targets: [String]
        var deleted: Counts?
        var name: String
        var host: String
    }

    init(_ asked: Asked, lower: String, _ shredding: Rotation.Shredding) {
        targets = asked.targets
        deleted = asked.deleted
        media = Media(serialNumber: shredding.volume, source: lower)
        let versions = shredding.destroyed.map { "v\($0)" }.joined(separator: ", ")
        sanitization = Sanitization(
            detail:
                "KEK versions of zone \(shredding.zone) destroyed in the keyring and, by their version keys, in the token: "
                + versions,
            tool: Lethefs.configuration.version,
            verification: "each destroyed version was tried with the keyring as it was before; the token refused each")
        keys = [shredding]
        residual = [
            "Ciphertext may remain in free blocks, snapshots and backups; no key opens contents, attributes or link targets in it.",
            "Names of what was deleted from a directory that survives can be read from such a copy: directories keep their keys.",
            "A backup of the token itself, from before, would bring the version keys back.",
        ]
        if let linked = asked.deleted?.filesWithOtherNames, linked > 0 {
            residual.append(
                "\(linked) files have other names in the volume and survive under those.")
        }
        person = Person(name: asked.name, host: asked.host, date: Date.now)
    }

    private var deletedText: String {
        guard let deleted else { return "not known" }
        return
            "\(deleted.files) files, \(deleted.bytes) bytes, \(deleted.directories) directories, \(deleted.others) others"
    }

    /// The very bytes that are signed: JSON with sorted keys.
    var statement: Data {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            encoder.dateEncodingStrategy = .iso8601
            return try encoder.encode(self)
        }
    }

    /// For people.
    var text: String {
        var lines = [
            "CERTIFICATE OF SANITIZATION (fields of NIST SP 800-88 Rev. 1, appendix G)", "",
            "media         \(media.type)", "  serial      \(media.serialNumber)", "  source      \(media.source)",
            "type          \(sanitization.type)", "method        \(sanitization.method)",
            "  detail      \(sanitization.detail)", "tool          \(sanitization.tool)",
            "verification  \(sanitization.verification)",
            "deleted       \(deletedText)",
        ]
        lines += targets.map { "  target      \($0)" }
        for key in keys {
            lines.append(
                "zone \(key.zone)        KEK v\(key.activeKEK) is active; \(key.versionKeysDestroyed) version keys destroyed; "
                    + "\(key.survivorsRewrapped) headers of survivors rewrapped; keyring generation \(key.keyringGeneration)"
            )
            for (cmk, token) in zip(key.cmks, key.tokens) {
                lines.append("  CMK         \(cmk)")
                let facts = ["manufacturer", "model", "serial", "token"].compactMap { name in
                    token[name].map { "\(name) \($0)" }
                }
                lines.append("  token       \(facts.joined(separator: ", "))")
            }
        }
        lines += residual.map { "residual      \($0)" }
        lines += [
            "performed by  \(person.name) on \(person.host), \(person.date.formatted(.iso8601))",
            "  title       ____________________   location ____________________   phone ____________________",
            "  signature   ____________________",
        ]
        return lines.joined(separator: "\n") + "\n"
    }
}

/// A certificate, the very bytes that were signed, and the signature: ECDSA or RSA over SHA-256 by the key beside the CMK (AUDIT.md).
struct SignedCertificate: Codable {
    var certificate: SanitizationCertificate
    /// The certificate as JSON text, as it was signed.
    var statement: String
    /// SHA-256 of the signing key's SubjectPublicKeyInfo; `nil` when nothing could sign.
    var key: String?
    /// Base64.
    var signature: String?
    /// The volume's signing keys, SubjectPublicKeyInfo, base64.
    var publicKeys: [String] = []

    /// For people.
    var text: String {
        guard let key, let signature else { return certificate.text + "NOT SIGNED: the token gave no signature\n" }
        return certificate.text + "signed by     key \(key)\n              \(signature)\n"
    }
}
