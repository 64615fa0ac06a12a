import KeyManagement
import Storage
import VolumeFormat

/// Crypto-shredding: what was deleted before is closed to every copy that there is of it, by destroying the KEKs that its DEKs were
/// ever wrapped by. The survivors are wrapped by a new one first.
extension VolumeMount {
    /// What a shredding has destroyed, and how that was tried.
    package struct Shredded: Sendable, Equatable {
        /// KEK versions that are destroyed for good now.
        package var destroyed: [KeyVersion]
        package var versionKeys: Int
        /// The versions that an old copy of the keyring was tried to open with; each was refused.
        package var refused: [KeyVersion]
        package var active: KeyVersion
        /// Headers of survivors that were wrapped anew.
        package var rewrapped: UInt64
        package var generation: UInt64
    }

    /// Notes that a shredding has begun: if the process dies from here on, the next mount finishes it. Files are deleted after this.
    package func beginShredding(_ zone: ZoneID) throws(VolumeError) {
        guard let keyring = keyring(zone) else { throw .missing("\(VolumeFiles.zones)/\(zone.rawValue)") }
        if let version = keyring.unguardedKEKs.first { throw .unguarded(version) }
        try changeKeyring(zone) { (keyring, keys) throws(VolumeError) in
            // Its files' headers are wrapped by the KEKs of two zones, and one of them alone would be destroyed.
            guard !assignments.contains(where: { $0.zone == zone || $0.work.source == zone }) else {
                throw .unassignable(.underWay)
            }
            guard !keyring.pending.contains(where: { $0.kind == .shred }) else { return keys }
            guard keyring.pending.count < PendingWork.maximumCount else { throw .keyring(.full) }
            keyring.pending.append(
                PendingWork(.shred, version: keys.activeKEK.version, started: Volume.now, flags: [.paused]))
            return keys
        }
    }

    /// Makes a new KEK, wraps the survivors by it, destroys all versions before it in keyring and tokens, and tries an old copy of
    /// the keyring. Can be repeated after a failure.
    package func finishShredding(
        _ zone: ZoneID, editing: KeyringEditing, control: SweepControl, threads: Int = 2
    ) throws(VolumeError) -> Shredded {
        if let version = keyring(zone)?.unguardedKEKs.first { throw .unguarded(version) }
        try requireFlushes()
        let noted = keyring(zone)?.pending.first { $0.kind == .shred && !$0.flags.contains(.paused) }
        let active: KeyVersion
        if let noted { active = noted.version } else { active = try rotateKEK(zone, editing: editing, shred: true) }
        try rewrap(zone, control: control, threads: threads)
        guard !control.isCancelled, let before = keyring(zone) else { throw .lower(.interrupted, "shredding") }
        let old = before.keks.filter { $0.version < active && $0.state != .destroyed }
        let coverage = try coverage(zone, threads: threads)
        guard coverage.failed == 0 else { throw .incomplete(failed: coverage.failed, coverage.failures) }
        for kek in old {
            if let count = coverage.keks[kek.version], count.objects > 0 {
                throw .stillProtects(kek.version, count: count.objects, paths: count.paths)
            }
        }
        for kek in old { try destroy(zone, kek.version, editing: editing) }
        let versionKeys = try purge(zone, editing: editing)
        var refused: [KeyVersion] = []
        for kek in old {
            // Anything but a refusal for want of the version key proves nothing.
            guard case .root(let error, _)? = editing.trial(kek.version, with: before), error.code == .versionDestroyed
            else { throw .notDestroyed(kek.version) }
            refused.append(kek.version)
        }
        try forget(zone) { $0.kind == .shred }
        return Shredded(
            destroyed: old.map(\.version), versionKeys: versionKeys, refused: refused, active: active,
            rewrapped: control.progress.changed, generation: keyring(zone)?.generation ?? 0)
    }
}
