import ControlPlane
import KeyManagement
import Storage
import VolumeEngine
import VolumeFormat

/// Moving in: a tree goes to another zone, and gets new DEKs there.
extension Rotation {
    /// What came of it.
    struct AssignReport: Codable, Sendable {
        /// The zone that the tree belongs to now, and the one that it came from.
        var zone: UInt32
        var source: UInt32
        var path: String
        var directories: UInt64 = 0
        var files: UInt64 = 0
        var links: UInt64 = 0
        /// Plaintext bytes of the files.
        var bytes: UInt64 = 0
        /// Files that got new DEKs.
        var reencrypted: UInt64 = 0
        var sealedBytes: UInt64 = 0
        var seconds: Double = 0
        /// Every header is the new zone's, and every DEK is new.
        var isFinished = false
        /// What goes on in the background, or waits.
        var pending: [String] = []

        /// For people.
        var text: String {
            var lines: [String] = []
            if isFinished {
                lines.append(
                    "/\(path) belongs to zone \(zone): \(files) files, \(directories) directories, \(links) links, \(bytes) bytes, "
                        + "from zone \(source) in \(Report.seconds(seconds))")
                lines.append("  \(reencrypted) files have new DEKs; names and directories keep theirs")
            } else {
                lines.append("/\(path) is on its way from zone \(source) to zone \(zone); it goes on by itself")
                lines += pending.map { "  to be done: \($0)" }
            }
            return lines.joined(separator: "\n") + "\n"
        }
    }

    /// Converts a tree, then re-encrypts it. In the background only the note is stored; the daemon does the rest.
    func assign(
        _ directory: Inode, path: String, to destination: ZoneID, rate: UInt32, yields: Bool, background: Bool
    ) throws -> AssignReport {
        let start = SweepClock.now
        return try reporting {
            let source = try mount.volume.zone(of: directory)
            var report = AssignReport(zone: destination.rawValue, source: source.rawValue, path: path)
            try sweeps.run([destination, source], .assign) { control in
                let work = try mount.beginAssignment(
                    directory, to: destination, rate: rate, flags: yields ? [.yields] : [])
                note("zone \(destination.rawValue): a tree of zone \(source.rawValue) is on its way")
                audit?.append(
                    .zoneMoveStarted, zone: destination, ["path": path, "from": "\(source.rawValue)"])
                try remember(path, destination)
                guard !background else { return }
                try move(destination, source, work, directory, control, &report)
            }
            let pending = mount.keyring(destination)?.pending ?? []
            report.pending = pending.map(Self.text)
            report.isFinished = !background && !pending.contains { $0.kind == .assign || $0.kind == .reencrypt }
            report.seconds = SweepClock.now - start
            return report
        }
    }

    /// What a crash, an unmount or a revocation interrupted, or was begun in the background.
    func resumeAssignment(_ destination: ZoneID, _ work: PendingWork) throws {
        guard let source = work.source else { return }
        try sweeps.run([destination, source], .assign) { control in
            var report = AssignReport(zone: destination.rawValue, source: source.rawValue, path: "")
            try move(destination, source, work, nil, control, &report)
        }
        // Not for ever at once again: who looks after it waits ever longer.
        guard sweeps.isEnding || mount.keyring(destination)?.pending.contains(work) != true else {
            throw Failure(
                .unfinished, "the tree on its way from zone \(source.rawValue) to zone \(destination.rawValue) waits",
                meaning: "A zone was closed meanwhile.", remedy: "it goes on by itself")
        }
    }

    /// The conversion, then the re-encryption. What is interrupted stays noted.
    private func move(
        _ destination: ZoneID, _ source: ZoneID, _ work: PendingWork, _ directory: Inode?, _ control: SweepControl,
        _ report: inout AssignReport
    ) throws {
        let next = try mount.assign(destination, work, directory: directory, control: control)
        let progress = control.progress
        (report.directories, report.files, report.links, report.bytes) =
            (progress.directories, progress.files, progress.links, progress.bytes)
        guard let next else { return }
        arrived(destination, source, progress)
        // From here on the source has nothing to do with it.
        sweeps.narrow(control, to: .reencrypt)
        audit?.append(.reencryptionStarted, zone: destination, ["scope": "path"])
        report.reencrypted = try mount.reencrypt(destination, next, editing: editing, control: control)
        report.sealedBytes = control.progress.sealed
        note("zone \(destination.rawValue): \(report.reencrypted) files re-encrypted")
        finished(destination, report.reencrypted)
    }

    /// A tree on its way waits for the zone that it comes from.
    func isReady(_ work: PendingWork) -> Bool {
        guard let source = work.source else { return true }
        return !sweeps.isRunning(source) && (try? mount.volume.zone(source).isOpen) == true
    }

    private func arrived(_ destination: ZoneID, _ source: ZoneID, _ progress: SweepControl.Progress) {
        note(
            "zone \(destination.rawValue): a tree has arrived from zone \(source.rawValue), \(progress.changed) objects"
        )
        audit?.append(
            .zoneMoved, zone: destination,
            [
                "from": "\(source.rawValue)", "files": "\(progress.files)", "directories": "\(progress.directories)",
                "bytes": "\(progress.bytes)",
            ])
    }

    /// The path is known as that zone's from now on.
    private func remember(_ path: String, _ zone: ZoneID) throws {
        let volume = mount.volume.description.volume
        guard var record = host.readRecord(volume) else { return }
        record.zones = (record.zones ?? [:]).merging([path: zone.rawValue]) { $1 }
        try host.writeRecord(volume, record)
    }
}
