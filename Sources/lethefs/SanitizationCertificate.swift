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
    var deleted: Counts
    var sanitization: Sanitization
    var keys: [Rotation.Shredding]
    var residual: [String]
    var person: Person

    init(targets: [String], deletion: Deletion, lower: String, shreddings: [Rotation.Shredding]) {
        self.targets = targets
        deleted = Counts(
            files: deletion.files, directories: deletion.directories, others: deletion.others, bytes: deletion.bytes,
            filesWithOtherNames: deletion.linked)
        media = Media(serialNumber: shreddings.first?.volume ?? "", source: lower)
        let versions = shreddings.map { shredding in
            "zone \(shredding.zone): " + shredding.destroyed.map { "v\($0)" }.joined(separator: ", ")
        }
        sanitization = Sanitization(
            detail: "KEK versions destroyed in the keyring and, by their version keys, in the token: "
                + versions.joined(separator: "; "),
            tool: Lethefs.configuration.version,
            verification: "each destroyed version was tried with the keyring as it was before; the token refused each")
        keys = shreddings
        var residual = ["Ciphertext may remain in free blocks, snapshots and backups; no key opens it."]
        residual.append("A backup of the token itself, from before, would bring the version keys back.")
        if deletion.linked > 0 {
            residual.append("\(deletion.linked) files have other names in the volume and survive under those.")
        }
        self.residual = residual
        var host = [CChar](repeating: 0, count: 256)
        gethostname(&host, 255)
        person = Person(
            name: ProcessInfo.processInfo.environment["SUDO_USER"] ?? ProcessInfo.processInfo.environment["USER"]
                ?? "uid \(getuid())",
            host: String(decoding: host.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self), date: Date.now)
    }

    /// For people.
    var text: String {
        var lines = [
            "CERTIFICATE OF SANITIZATION (fields of NIST SP 800-88 Rev. 1, appendix G)", "",
            "media         \(media.type)", "  serial      \(media.serialNumber)", "  source      \(media.source)",
            "type          \(sanitization.type)", "method        \(sanitization.method)",
            "  detail      \(sanitization.detail)", "tool          \(sanitization.tool)",
            "verification  \(sanitization.verification)",
            "deleted       \(deleted.files) files, \(deleted.bytes) bytes, \(deleted.directories) directories, \(deleted.others) others",
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
