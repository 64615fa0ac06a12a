import ArgumentParser
import ControlPlane
import FoundationEssentials
import KeyManagement
import VolumeEngine
import VolumeFormat

struct PolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy", abstract: "Cryptoperiods: how long keys may be used, and what follows.",
        discussion: """
            Periods are numbers with a unit: 90d, 12mo, 2y (also h, min, s, w; a month is a twelfth of 365 days). Mounted, the daemon \
            tells in its log, in status and in the audit log before a period ends, and rotates what the policy names by itself.
            """,
        subcommands: [Show.self, Set.self])

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Show the cryptoperiods, and how each key stands to them.")

        @Argument(help: "A lower directory or a mount point.", completion: .directory)
        var target: String
        @Flag(name: .long, help: "Print JSON.")
        var json = false

        func run() throws {
            try lethefs.reporting {
                let report: PolicyReport
                switch try Target(target) {
                case .mounted(let record, _): report = try DaemonClient.ask(record, .policy)
                case .lower(let lower): report = try PolicyReport(lower: lower)
                }
                try report.show(json: json)
            }
        }
    }

    struct Set: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "set", abstract: "Change the cryptoperiods.",
            discussion: "What is not named stays. They lie in the volume's description, under its MAC.")

        @Argument(help: "A lower directory or a mount point.", completion: .directory)
        var target: String
        @Option(name: .long, help: "Begin with those of sp800-57, pci-dss or none.")
        var preset: PolicyPreset?
        @Option(name: .long, help: ArgumentHelp("Of files' DEKs; none for no period.", valueName: "period"))
        var dek: String?
        @Option(name: .long, help: ArgumentHelp("Of KEKs, and of links' metadata keys.", valueName: "period"))
        var kek: String?
        @Option(name: .long, help: ArgumentHelp("Of CMKs.", valueName: "period"))
        var cmk: String?
        @Option(name: .long, help: ArgumentHelp("Tell so long before the end (30d).", valueName: "period"))
        var warn: String?
        @Option(name: .long, help: ArgumentHelp("Rotate by itself: kek, dek, kek,dek or none.", valueName: "types"))
        var automatic: String?
        @Flag(name: .long, help: "Print JSON.")
        var json = false

        func run() throws {
            try lethefs.reporting {
                ProcessHardening.apply()
                let change = PolicyChange(
                    preset: preset, dek: dek, kek: kek, cmk: cmk, warn: warn, automatic: automatic)
                _ = try change.applied(to: .none, checking: false)
                let report: PolicyReport
                switch try Target(target) {
                case .mounted(let record, _):
                    let text = String(decoding: try JSONEncoder().encode(change), as: UTF8.self)
                    report = try DaemonClient.ask(record, .policySet, ["change": text])
                case .lower(let lower): report = try Self.offline(lower, change)
                }
                try report.show(json: json)
            }
        }

        private static func offline(_ lower: String, _ change: PolicyChange) throws -> PolicyReport {
            let volume = try OfflineVolume.open(lower)
            let result = Result { try change.store(in: volume.mount, volume.host, lower: lower) }
            try volume.close()
            let fields = try result.get()
            if !AuditNote.leave(.lower(lower), .policyChanged, fields) {
                FileHandle.standardError.write("lethefs: the audit log has no record of it\n")
            }
            return try PolicyReport(lower: lower)
        }
    }
}

enum PolicyPreset: String, ExpressibleByArgument, CaseIterable, Codable {
    case sp80057 = "sp800-57"
    case pciDSS = "pci-dss"
    case none

    var policy: CryptoperiodPolicy {
        switch self {
        case .sp80057: .sp80057
        case .pciDSS: .pciDSS
        case .none: .none
        }
    }
}

/// What `policy set` asks for.
struct PolicyChange: Codable {
    var preset: PolicyPreset?
    var dek: String?
    var kek: String?
    var cmk: String?
    var warn: String?
    var automatic: String?

    func applied(to old: CryptoperiodPolicy, checking: Bool = true) throws -> CryptoperiodPolicy {
        var policy = old
        if let preset {
            policy = preset.policy
            policy.revision = old.revision
        }
        let given: [(CryptoperiodPolicy.KeyType, String?)] = [(.dek, dek), (.kek, kek), (.cmk, cmk)]
        for (type, text) in given {
            guard let text else { continue }
            policy.periods[type] = text == "none" ? nil : try Self.period(text)
            if policy.periods[type] == nil { policy.automatic.remove(type) }
        }
        if let automatic {
            let types = automatic.split(separator: ",").filter { $0 != "none" }
            policy.automatic = Swift.Set(
                try types.map { name in
                    guard let type = CryptoperiodPolicy.KeyType(rawValue: String(name)) else {
                        throw Failure(.invalid, "--automatic \(automatic)", remedy: "kek, dek, kek,dek or none")
                    }
                    return type
                })
        }
        if let warn {
            policy.warning = try Self.period(warn)
        } else if let shortest = policy.shortest, policy.warning > shortest / 2 {
            policy.warning = max(1, shortest / 4)
        }
        if checking, let fault = policy.fault { throw Failure(.invalid, fault, meaning: "Nothing was changed.") }
        return policy
    }

    private static func period(_ text: String) throws -> UInt64 {
        guard let seconds = Period.parse(text) else {
            throw Failure(.invalid, "\"\(text)\" is no period", remedy: "90d, 12mo or 2y; also h, min, s, w")
        }
        return seconds
    }

    /// Changes a volume's description; gives what the record of it says.
    func store(in mount: VolumeMount, _ host: Host, lower: String) throws -> [String: String] {
        let old = CryptoperiodPolicy(mount.settings)
        var policy = try applied(to: old)
        let volume = mount.volume.description.volume
        var memory = host.readCryptoperiods(volume)
        policy.revision = max(old.revision, memory.revision) + 1
        let new = policy
        do { try mount.changeSettings { new.store(in: &$0) } } catch { throw Failure(error, lower: lower) }
        memory.revision = new.revision
        try host.writeCryptoperiods(volume, memory)
        return ["from": PolicyReport.words(old), "to": PolicyReport.words(new), "revision": "\(new.revision)"]
    }
}

/// A volume's cryptoperiods, and how its keys stand to them.
struct PolicyReport: Codable, Sendable {
    /// `sp800-57`, `pci-dss`, `none`, or not there for others.
    var preset: String?
    /// By key type.
    var periodSeconds: [String: UInt64]
    var warnSeconds: UInt64
    var automatic: [String]
    var revision: UInt64
    /// The revision that this host has seen, where the volume's is older.
    var revertedFrom: UInt64?
    var zones: [CryptoperiodReview]

    init(_ policy: CryptoperiodPolicy, revertedFrom: UInt64?, _ zones: [CryptoperiodReview]) {
        preset = PolicyPreset.allCases.first { $0.policy.periods == policy.periods }?.rawValue
        periodSeconds = Dictionary(uniqueKeysWithValues: policy.periods.map { ($0.key.rawValue, $0.value) })
        warnSeconds = policy.warning
        automatic = policy.automatic.map(\.rawValue).sorted()
        revision = policy.revision
        self.revertedFrom = revertedFrom
        self.zones = zones
    }

    /// Of a volume that is not mounted: as the description says, not authenticated.
    init(lower: String) throws {
        do {
            let files = try VolumeFiles(lower: lower)
            let description = try files.readDescription().value
            let policy = CryptoperiodPolicy(description.settings)
            let memory = Host().readCryptoperiods(description.volume)
            let zones =
                policy.isNone
                ? []
                : try files.zoneIDs().map { (id) throws(VolumeError) in
                    CryptoperiodReview(
                        try files.keyring(id), policy, ages: memory.zones["\(id.rawValue)"]?.ages, now: Volume.now)
                }
            self.init(
                policy, revertedFrom: policy.revision < memory.revision ? memory.revision : nil, zones)
        } catch { throw Failure(error, lower: lower) }
    }

    static func words(_ policy: CryptoperiodPolicy) -> String {
        guard !policy.isNone else { return "none" }
        let periods = CryptoperiodPolicy.KeyType.allCases.map { type in
            "\(type.rawValue) \(policy.periods[type].map(Period.text) ?? "none")"
        }
        let automatic = policy.automatic.map(\.rawValue).sorted().joined(separator: ",")
        return
            (periods + ["warn \(Period.text(policy.warning))", "automatic \(automatic.isEmpty ? "none" : automatic)"])
            .joined(separator: ", ")
    }

    func show(json: Bool) throws {
        if json { return try printJSON(self) }
        var lines = ["cryptoperiods \(preset.map { "\($0), " } ?? "")revision \(revision)"]
        for type in CryptoperiodPolicy.KeyType.allCases {
            lines.append("  \(type.rawValue)          \(periodSeconds[type.rawValue].map(Period.text) ?? "none")")
        }
        if !periodSeconds.isEmpty {
            lines.append("  warn         \(Period.text(warnSeconds)) before the end")
            lines.append("  automatic    \(automatic.isEmpty ? "none" : automatic.joined(separator: ", "))")
        }
        if let revertedFrom {
            lines.append(
                "  REVERTED     this host has seen revision \(revertedFrom): an older description was put back")
        }
        lines += zones.flatMap(\.lines)
        FileHandle.standardOutput.write(lines.joined(separator: "\n") + "\n")
    }
}

extension CryptoperiodReview {
    /// For people.
    var lines: [String] {
        items.map { item in
            var words =
                "zone \(zone)  \(item.name): \(item.standing.rawValue), since \(item.since.formatted(.iso8601)), "
                + "due \(item.due.formatted(.iso8601))"
            if let overdue = item.overdue, let soon = item.dueSoon, let counted = item.counted {
                words += "; \(overdue) files overdue, \(soon) due soon, counted \(counted.formatted(.iso8601))"
            } else if item.type == .dek {
                words += " at the earliest: not counted"
            }
            if let directories = item.directoriesOverdue, directories > 0 {
                words += "; names in \(directories) directories under DEKs past it, which are not replaced"
            }
            return words + (item.automatic ? "; automatic" : "")
        }
    }
}
