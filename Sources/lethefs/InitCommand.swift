import ArgumentParser
import CLinux
import Ciphers
import FoundationEssentials
import KeyManagement
import KeyProviderPKCS11
import Storage
import VolumeEngine
import VolumeFormat

struct InitCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init",
        abstract: "Make a new volume in an empty directory.",
        discussion: """
            Without --root the CMK is generated in a SoftHSM2 token of this host, with a random PIN in a file of mode 0600. With \
            --root it lives where the URI says; a key of that name is used if the token has one, and generated in the token \
            otherwise (sensitive, not extractable). Several --root make several CMKs: with --policy any-of each of them opens the \
            volume, with all-of it takes them all.
            """)

    @Argument(help: "The lower directory: it will hold only ciphertext.", completion: .directory)
    var lower: String
    @Option(name: .long, help: ArgumentHelp("URI of the CMK; may be repeated.", valueName: "uri"))
    var root: [String] = []
    @Option(name: .long, help: "any-of or all-of, with several --root.")
    var policy: PolicyName = .anyOf
    @Option(
        name: .long,
        help: ArgumentHelp(
            "How long keys may be used after a lease's end while their owner cannot be reached. Default 0: fail closed.",
            valueName: "seconds"))
    var grace: UInt32 = 0
    @Option(name: .long, help: "Cryptoperiods to begin with: sp800-57, pci-dss or none; see lethefs policy.")
    var cryptoperiods: PolicyPreset = .sp80057
    @Option(
        name: .long,
        help:
            "tree: older pages of a file are noticed. names: exchanged files are noticed. May be repeated; for the volume's life."
    )
    var integrity: [IntegrityFeature] = []
    @Flag(name: .long, help: "Print the result as JSON.")
    var json = false

    enum PolicyName: String, ExpressibleByArgument, CaseIterable {
        case anyOf = "any-of"
        case allOf = "all-of"
    }

    /// A day: longer is no bound.
    private static let maximumGrace: UInt32 = 86_400

    private struct Report: Encodable {
        var volume: String
        var lower: String
        var cmks: [String]
        var createdCMKs: Int
        var embedded: Bool
        /// SHA-256 of the public key that signs the audit log.
        var auditKey: String?
        /// What the device below writes as a whole, where the kernel says it.
        var atomicBytes: Int?
    }

    func run() throws {
        try reporting {
            ProcessHardening.apply()
            guard grace <= Self.maximumGrace else {
                throw Failure(.invalid, "--grace \(grace): more than a day", remedy: "at most \(Self.maximumGrace)")
            }
            let path = try Paths.absolute(lower, mustExist: false)
            do throws(VolumeError) { try VolumeCreation.prepare(path, features: features) } catch {
                throw Failure(error, lower: path)
            }
            let host = Host()
            let volume = try Self.newVolumeID()
            let uris = root.isEmpty ? [try embeddedRoot(host, volume)] : root
            var cmks: [any CustomerMasterKey] = []
            var created = 0
            for uri in uris {
                do throws(RootError) {
                    let (cmk, isNew) = try Roots.openOrCreate(uri)
                    cmks.append(cmk)
                    if isNew { created += 1 }
                } catch { throw Failure(error, uri: Roots.withoutPIN(uri)) }
            }
            // First what this host must know to mount it; a volume that nobody can open would be worse than a stale record.
            try host.writeRecord(volume, Host.VolumeRecord(roots: uris.map(Roots.kept)))
            let keys = cmks
            var auditKey: String?
            let unlocking = KeyringUnlocking { (_) throws(RootError) in keys[0] }
            do throws(VolumeError) {
                try VolumeCreation.create(
                    path, volume: volume, cmks: cmks, policy: policy == .anyOf ? .anyOf : .allOf, unlocking: unlocking,
                    features: features, settings: settings
                ) { (directory, zoneKeys) throws(VolumeError) in
                    auditKey = try AuditOpening.begin(directory, host, zoneKeys, cmks, createdCMKs: created)
                }
            } catch { throw Failure(error, lower: path) }
            try report(
                Report(
                    volume: "\(volume)", lower: path, cmks: cmks.map(\.uri), createdCMKs: created,
                    embedded: root.isEmpty, auditKey: auditKey,
                    atomicBytes: LowerDevice.atomicBytes(below: path)),
                host)
        }
    }

    private var features: FeatureFlags { integrity.reduce(into: []) { $0.formUnion($1.flag) } }

    private var settings: [VolumeSetting: UInt64] {
        var settings: [VolumeSetting: UInt64] = [.audited: 1]
        if grace > 0 { settings[.graceSeconds] = UInt64(grace) }
        var policy = cryptoperiods.policy
        policy.revision = 1
        policy.store(in: &settings)
        return settings
    }

    private func embeddedRoot(_ host: Host, _ volume: UniqueID) throws -> String {
        try host.makeDirectory("")
        do {
            return try EmbeddedToken.create(in: host.embeddedTokens, label: "lethefs-\("\(volume)".prefix(18))")
        } catch { throw Failure(error, uri: "embedded SoftHSM2 token in \(host.embeddedTokens)") }
    }

    static func newVolumeID() throws -> UniqueID {
        var words: (UInt64, UInt64) = (0, 0)
        do {
            try withUnsafeMutableBytes(of: &words) { (bytes) throws(CipherError) in try RandomBytes.fill(bytes) }
        } catch { throw Failure(.internalError, "no random numbers from OpenSSL") }
        return UniqueID(high: words.0, low: words.1)
    }

    private func report(_ report: Report, _ host: Host) throws {
        if json { return try printJSON(report) }
        var lines = ["volume \(report.volume) made in \(report.lower)"]
        for uri in report.cmks { lines.append("  CMK  \(uri)") }
        if report.embedded {
            lines.append(
                "  The CMK's token is below \(host.embeddedTokens): keep a backup of it apart from the volume.")
        }
        if report.auditKey == nil {
            lines.append("  The audit log is NOT SIGNED: no token of the volume makes a signing key.")
        }
        if let bytes = report.atomicBytes, bytes < Geometry.pageSize {
            lines.append(
                "  The device below writes \(bytes) bytes as a whole, not \(Geometry.pageSize): a power cut can cost the page that is being "
                    + "overwritten (docs/CRASHES.md).")
        }
        lines.append("next: lethefs mount \(report.lower) MOUNTPOINT")
        FileHandle.standardOutput.write(lines.joined(separator: "\n") + "\n")
    }
}

extension Roots {
    /// For messages.
    static func withoutPIN(_ uri: String) -> String {
        (try? PKCS11URI(uri))?.identity ?? String(uri.prefix { $0 != "?" })
    }
}
