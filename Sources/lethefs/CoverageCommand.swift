import ArgumentParser
import FoundationEssentials
import KeyManagement
import VolumeEngine
import VolumeFormat

struct CoverageCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "coverage",
        abstract: "Count what each CMK, KEK and DEK version protects, from the headers themselves.",
        discussion:
            "Every header is read and authenticated. Exit code 42: some could not be; what they need is not known.")

    @Argument(help: "A lower directory or a mount point.", completion: .directory)
    var target: String
    @Option(name: .long, help: "Only the zone of that number.")
    var zone: UInt32?
    @Flag(name: .long, help: "Print JSON.")
    var json = false

    func run() throws {
        try reporting {
            ProcessHardening.apply()
            let only = zone.map { ZoneID(rawValue: $0) }
            let report = try RotationRunner.run(
                target, .coverage, only.map { ["zone": "\($0.rawValue)"] } ?? [:], readOnly: true
            ) { try $0.coverage(only) }
            if json { try printJSON(report) } else { Self.show(report) }
            if report.zones.contains(where: { $0.failed > 0 }) { throw ExitCode(Failure.Code.unfinished.rawValue) }
        }
    }

    private static func show(_ report: Rotation.CoverageReport) {
        var lines: [String] = []
        for zone in report.zones {
            lines.append("zone \(zone.zone)")
            for cmk in zone.cmks {
                lines.append(
                    "  CMK \(cmk.state)  \(cmk.keks) KEK versions, \(cmk.files) files, \(cmk.bytes) bytes  \(cmk.uri)")
            }
            for kek in zone.keks {
                let end =
                    kek.mayRetire ? "  may be retired: lethefs kek retire … \(kek.version)" : ""
                lines.append(
                    "  KEK v\(kek.version) \(kek.state)  \(kek.files) files, \(kek.directories) directories, \(kek.bytes) bytes\(end)"
                )
                for wrap in kek.wraps { lines.append("      wrapped by \(wrap)") }
            }
            for dek in zone.deks {
                lines.append(
                    "  DEK v\(dek.version)  \(dek.files) files, \(dek.directories) directories, \(dek.bytes) bytes")
            }
            for key in zone.metadataKeys {
                lines.append("  metadata key v\(key.version)  \(key.objects) links and attributes")
            }
            lines.append("  algorithms  contents \(report.contents), DEKs \(report.dekWrap), names \(report.names)")
            if zone.mixed > 0 {
                lines.append("  \(zone.mixed) files hold several DEKs: their re-encryption is under way")
            }
            if zone.unlinked > 0 { lines.append("  \(zone.unlinked) files have no name any more and are still open") }
            for work in zone.pending { lines.append("  to be done  \(work)") }
            if zone.failed > 0 {
                lines.append("  NOT COUNTED \(zone.failed) objects could not be read:")
                lines += zone.failures.map { "      \($0)" }
            }
        }
        FileHandle.standardOutput.write(lines.joined(separator: "\n") + "\n")
    }
}

extension Rotation {
    struct CoverageReport: Codable, Sendable {
        struct CMK: Codable, Sendable {
            var uri: String
            var state: String
            var keks = 0
            var files: UInt64 = 0
            var bytes: UInt64 = 0
        }
        struct KEK: Codable, Sendable {
            var version: UInt32
            var state: String
            var files: UInt64
            var directories: UInt64
            var bytes: UInt64
            var paths: [String]
            /// Algorithm of each wrap, and which CMK it is.
            var wraps: [String]
            var mayRetire: Bool
        }
        struct DEK: Codable, Sendable {
            var version: UInt32
            var files: UInt64
            var directories: UInt64
            var bytes: UInt64
        }
        struct Metadata: Codable, Sendable {
            var version: UInt32
            var objects: UInt64
        }
        struct Zone: Codable, Sendable {
            var zone: UInt32
            var cmks: [CMK]
            var keks: [KEK]
            var deks: [DEK]
            var metadataKeys: [Metadata]
            var mixed: UInt64
            var unlinked: UInt64
            var unwritten: UInt64
            var oldestDEK: Date?
            var failed: UInt64
            var failures: [String]
            var pending: [String]
        }
        var contents = "AES-256-GCM"
        var dekWrap = "AES-256-KW"
        var names = "AES-256-KWP"
        var zones: [Zone]
    }

    func coverage(_ only: ZoneID?) throws -> CoverageReport {
        if let only, mount.keyring(only) == nil { throw unknown(only) }
        return try reporting {
            CoverageReport(
                zones: try mount.zoneKeyrings.filter { only == nil || $0.zone == only }.map { keyring in
                    Self.counted(
                        keyring,
                        try sweeps.run(keyring.zone, .coverage) { try mount.coverage(keyring.zone, control: $0) })
                })
        }
    }

    private static func counted(_ keyring: ZoneKeyring, _ coverage: Coverage) -> CoverageReport.Zone {
        // Until it is done, not everything is known to be counted.
        let isRewrapped = !keyring.pending.contains { $0.kind == .rewrap || $0.kind == .shred }
        let keks = keyring.keks.map { kek in
            let count = coverage.keks[kek.version] ?? .init()
            return CoverageReport.KEK(
                version: kek.version.rawValue, state: kek.state.name, files: count.files,
                directories: count.directories,
                bytes: count.bytes, paths: count.paths,
                wraps: kek.wraps.map { wrap in
                    "\(Self.name(wrap.wrap)), CMK \(wrap.cmk)\(wrap.share > 0 ? ", share \(wrap.share)" : "")"
                },
                mayRetire: kek.state != .active && kek.state.mayDecrypt && count.objects == 0 && coverage.failed == 0
                    && isRewrapped && !keyring.metadataKeys.contains { $0.kekVersion == kek.version })
        }
        let cmks = keyring.cmks.enumerated().map { index, cmk in
            var fact = CoverageReport.CMK(uri: cmk.uri, state: cmk.state.name)
            for kek in keyring.keks where kek.state.mayDecrypt && kek.wraps.contains(where: { Int($0.cmk) == index }) {
                fact.keks += 1
                fact.files += coverage.keks[kek.version]?.files ?? 0
                fact.bytes += coverage.keks[kek.version]?.bytes ?? 0
            }
            return fact
        }
        return CoverageReport.Zone(
            zone: keyring.zone.rawValue, cmks: cmks, keks: keks,
            deks: coverage.deks.sorted { $0.key < $1.key }.map {
                .init(
                    version: $0.key.rawValue, files: $0.value.files, directories: $0.value.directories,
                    bytes: $0.value.bytes)
            },
            metadataKeys: coverage.metadata.sorted { $0.key < $1.key }.map {
                .init(version: $0.key.rawValue, objects: $0.value)
            },
            mixed: coverage.mixed, unlinked: coverage.unlinked, unwritten: coverage.unwritten,
            oldestDEK: coverage.oldestDEK == 0 ? nil : Date(timeIntervalSince1970: Double(coverage.oldestDEK)),
            failed: coverage.failed, failures: coverage.failures, pending: keyring.pending.map(text))
    }

    private static func name(_ wrap: RootWrap) -> String {
        switch wrap.algorithm {
        case .aesGCM: "AES-256-GCM"
        case .rsaOAEPSHA256: "RSA-OAEP-SHA256"
        case .rsaOAEPSHA1: "RSA-OAEP-SHA1"
        case .aesCBCHMAC: "AES-256-CBC with HMAC-SHA256"
        case .split:
            (try? SplitWrap(parsing: wrap)).map { "\(name($0.root)) and \(name($0.version)) by version key" } ?? "split"
        }
    }
}
