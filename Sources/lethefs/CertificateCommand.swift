import ArgumentParser
import ControlPlane
import FoundationEssentials
import KeyManagement
import VolumeFormat

struct CertificateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "certificate", abstract: "Certificates of sanitization.", subcommands: [Verify.self])

    struct Verify: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "verify", abstract: "Check the signature of a certificate that shred gave.",
            discussion: """
                Without TARGET the certificate is checked against the public key in it alone, which whoever forged it could have put there. With \
                TARGET the key must be one that the volume's KEK, or this host, vouches for, the certificate must be of that \
                volume, and its keyring must say that the keys are destroyed. Exit code 1 if anything is amiss.
                """)

        @Argument(help: "FILE.json of the certificate.", completion: .file())
        var file: String
        @Argument(help: "The volume: a lower directory or a mount point.", completion: .directory)
        var target: String?
        @Option(name: .long, help: ArgumentHelp("Trust this CMK URI for the volume.", valueName: "uri"))
        var root: [String] = []
        @Flag(name: .long, help: "Print JSON.")
        var json = false

        func run() throws {
            try lethefs.reporting {
                ProcessHardening.apply()
                let source = try target.map { try AuditSource($0) }
                let trust = try source?.trust(roots: root).0
                let reports = try SignedCertificate.read(file).map { certificate in
                    CertificateReport(certificate, trust, destroyed: try source?.destroyedKEKs ?? [:])
                }
                if json {
                    try printJSON(reports)
                } else {
                    FileHandle.standardOutput.write(reports.map(\.text).joined(separator: "\n"))
                }
                if reports.contains(where: { !$0.findings.isEmpty }) {
                    throw ExitCode(Failure.Code.damageFound.rawValue)
                }
            }
        }
    }
}

/// What came of checking one certificate.
struct CertificateReport: Encodable {
    var volume: String
    var zone: UInt32
    var date: Date
    var destroyed: [UInt32]
    var key: String?
    /// Who vouches for the key: `sealed` (the volume's KEK), `host` (this host's memory), `certificate` (nobody else).
    var keySource: String
    /// Empty if nothing is amiss.
    var findings: [String] = []

    /// `destroyed`: by zone, the KEK versions that the volume's keyrings call destroyed. Looked at with `trust` alone.
    init(_ signed: SignedCertificate, _ trust: AuditTrust?, destroyed: [UInt32: [UInt32]]) {
        let certificate = signed.certificate
        volume = certificate.media.serialNumber
        zone = certificate.keys.first?.zone ?? 0
        date = certificate.person.date
        self.destroyed = certificate.keys.flatMap(\.destroyed)
        key = signed.key
        keySource = "certificate"
        // What people read has to be what was signed.
        if (try? certificate.statement) != Data(signed.statement.utf8) {
            findings.append("the certificate is not the statement that was signed")
        }
        guard let id = UniqueID(volume), certificate.keys.allSatisfy({ $0.volume == volume }) else {
            findings.append("it names no volume, or several")
            return
        }
        if certificate.keys.isEmpty || certificate.keys.contains(where: { $0.destroyed.isEmpty }) {
            findings.append("it names no KEK version that was destroyed")
        }
        for key in certificate.keys where Set(key.refused) != Set(key.destroyed) {
            findings.append("not every version that it calls destroyed was tried")
        }
        var keys = signed.publicKeys.compactMap { Base64.decode($0) }
        if let trust {
            if trust.volume != volume { findings.append("it is of another volume: \(trust.volume ?? "") was named") }
            for key in certificate.keys where !key.destroyed.allSatisfy({ destroyed[key.zone]?.contains($0) == true }) {
                findings.append("the keyring of zone \(key.zone) does not say that all its KEK versions are destroyed")
            }
            if trust.keys.isEmpty {
                findings.append("neither the volume's KEK nor this host vouches for a signing key")
            } else {
                keys = trust.keys
                keySource = trust.keySource.rawValue
            }
        }
        guard let key, let bytes = signed.signature.flatMap({ Base64.decode($0) }) else {
            findings.append("it is not signed")
            return
        }
        let signature = Signature(keyID: key, bytes: bytes)
        let named = keys.filter { (try? Signature.keyID(of: $0)) == key }
        guard !named.isEmpty else {
            findings.append("key \(key) is not one of the volume's")
            return
        }
        if !AuditLog.verifies(signature, of: Array(signed.statement.utf8), volume: id, publicKeys: named) {
            findings.append("the signature does not fit")
        }
    }

    /// For people.
    var text: String {
        var lines = findings.map { "AMISS        \($0)" }
        lines.append("certificate  of volume \(volume), zone \(zone), \(date.formatted(.iso8601))")
        lines.append("destroyed    KEK " + destroyed.map { "v\($0)" }.joined(separator: ", "))
        lines.append("signed by    \(key.map { "key \($0)" } ?? "nobody"); \(vouching)")
        lines.append(findings.isEmpty ? "nothing is amiss" : "\(findings.count) findings")
        return lines.joined(separator: "\n") + "\n"
    }

    private var vouching: String {
        switch keySource {
        case "sealed": "the volume's KEK vouches for the key"
        case "host": "this host remembers the key"
        default: "ONLY THE CERTIFICATE ITSELF vouches for the key: name the volume"
        }
    }
}
