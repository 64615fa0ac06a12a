import ArgumentParser
import ControlPlane
import FoundationEssentials
import VolumeEngine
import VolumeFormat

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show this host's mounts, or one volume or mount in detail.")

    @Argument(help: "A lower directory or a mount point; without it, all mounts.", completion: .directory)
    var path: String?
    @Flag(name: .long, help: "Print JSON.")
    var json = false

    /// A volume that is not mounted.
    private struct VolumeFacts: Encodable {
        var volume: String
        var lower: String
        var mounted = false
        var created: Date
        var formatVersion: UInt16
        var integrity: [String]
        var zones: [ZoneStatus]
    }

    func run() throws {
        try reporting {
            let host = Host()
            let records = host.runtime.records()
            guard let path else { return try list(records.compactMap { Self.status($0) }) }
            if let mounted = try? MountTable.find(path) {
                guard let record = records.last(where: { $0.mountPoint == mounted }),
                    let status = Self.status(record)
                else {
                    throw Failure(
                        .notMounted, "the daemon of \(mounted) does not answer",
                        meaning: "It belongs to another user, or has died.",
                        remedy: "fusermount3 -u \(mounted)  if it has died, then mount again")
                }
                return try show(status)
            }
            let lower = try Paths.absolute(path)
            if let record = records.last(where: { $0.lower == lower }), let status = Self.status(record) {
                return try show(status)
            }
            try show(try Self.facts(lower))
        }
    }

    private static func status(_ record: RuntimeDirectory.Record) -> MountStatus? {
        try? DaemonClient.ask(record, .status, timeoutSeconds: 10)
    }

    private static func facts(_ lower: String) throws -> VolumeFacts {
        do {
            let files = try VolumeFiles(lower: lower)
            let description = try files.readDescription().value
            return VolumeFacts(
                volume: "\(description.volume)", lower: lower,
                created: Date(timeIntervalSince1970: Double(description.created)),
                formatVersion: VolumeDescription.formatVersion, integrity: description.features.integrityNames,
                zones: try files.zoneIDs().map { (id) throws(VolumeError) in ZoneStatus(try files.keyring(id)) })
        } catch { throw Failure(error, lower: lower) }
    }

    private func list(_ mounts: [MountStatus]) throws {
        if json { return try printJSON(mounts) }
        if mounts.isEmpty { return FileHandle.standardOutput.write("no volume is mounted here\n") }
        for mount in mounts {
            FileHandle.standardOutput.write(
                "\(mount.mountPoint)  \(mount.lower)  pid \(mount.pid)  volume \(mount.volume)\n")
        }
    }

    private func show(_ status: MountStatus) throws {
        if json { return try printJSON(status) }
        var lines = [
            "volume       \(status.volume)",
            "lower        \(status.lower)",
            "mounted on   \(status.mountPoint)\(status.readOnly ? " (read-only)" : "")",
            "since        \(status.mountedAt.formatted(.iso8601)), pid \(status.pid), epoch \(status.epoch)",
            "guardian     \(status.guardian.map { "pid \($0)" } ?? "NONE: a crash now would leave plaintext readable")",
            "transport    \(status.transport)\(status.transportNote.map { ": " + $0 } ?? "")",
            "memory       \(status.residentKiB) KiB resident, \(status.lockedKiB) KiB locked; \(status.knownInodes) inodes known",
        ]
        if let integrity = status.integrity, !integrity.isEmpty {
            lines.append("integrity    \(integrity.joined(separator: ", "))")
        }
        if status.afterCrash {
            lines.append("note         a mount before this one ended in a crash; lethefs check verifies all files")
        }
        if let seen = status.rolledBackFrom {
            lines.append(
                "ROLLED BACK  this host has seen epoch \(seen); lethefs check --accept-restore, if a backup was restored"
            )
        }
        if status.damageEvents > 0 { lines.append("DAMAGE       \(status.damageEvents) times; see the log") }
        if let log = status.log { lines.append("log          \(log)") }
        lines.append("audit        \(Self.words(status.audit, readOnly: status.readOnly))")
        lines += Self.lines(status.zones)
        if let revision = status.policyRevertedFrom {
            lines.append(
                "REVERTED     this host has seen revision \(revision) of the cryptoperiods: an older description was put back"
            )
        }
        // What is in time is told by `policy show`.
        for review in status.cryptoperiods ?? [] {
            var due = review
            due.items.removeAll { $0.standing == .inTime || ($0.overdue == 0 && $0.dueSoon == 0) }
            lines += due.lines.map { "KEY AGE      \($0)" }
        }
        FileHandle.standardOutput.write(lines.joined(separator: "\n") + "\n")
    }

    private static func words(_ audit: AuditLog.Status?, readOnly: Bool) -> String {
        guard let audit else {
            return readOnly ? "none on a read-only mount" : "NO LOG in this mount; see the daemon's log"
        }
        var words = "\(audit.records) records, \(audit.sinceCheckpoint) since the last checkpoint"
        if audit.failures > 0 { words += "; \(audit.failures) WRITES FAILED, \(audit.waiting) records wait" }
        if audit.lost > 0 { words += ", \(audit.lost) LOST" }
        return words
    }

    private func show(_ facts: VolumeFacts) throws {
        if json { return try printJSON(facts) }
        let lines =
            [
                "volume       \(facts.volume)", "lower        \(facts.lower)", "not mounted on this host",
                "created      \(facts.created.formatted(.iso8601)), format \(facts.formatVersion)",
                "integrity    \(facts.integrity.isEmpty ? "-" : facts.integrity.joined(separator: ", "))",
            ] + Self.lines(facts.zones)
        FileHandle.standardOutput.write(lines.joined(separator: "\n") + "\n")
    }

    private static func words(_ condition: ZoneKeeper.Condition?) -> String {
        guard let condition else { return "" }
        var words = ", \(condition.state) since \(condition.since.formatted(.iso8601))"
        if let seconds = condition.leaseSeconds { words += ", lease \((seconds * 10).rounded() / 10) s" }
        if condition.isHeld { words += ", held until lethefs restore" }
        if let cause = condition.cause { words += ": \(cause)" }
        return words
    }

    static func lines(_ zones: [ZoneStatus]) -> [String] {
        zones.flatMap { zone in
            ["zone \(zone.zone)       \(zone.cmks.count > 1 ? zone.policy : "one CMK")\(Self.words(zone.condition))"]
                + zone.cmks.map { "  CMK        \($0.state) since \($0.since.formatted(.iso8601))  \($0.uri)" }
                + zone.keks.map { "  KEK v\($0.version)     \($0.state) since \($0.since.formatted(.iso8601))" }
        }
    }
}
