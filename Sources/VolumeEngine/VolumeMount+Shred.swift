import KeyManagement
import Storage
import VolumeFormat

/// Crypto-shredding: what was deleted before is closed to every copy that there is of it, by destroying the KEKs that its DEKs were
/// ever wrapped by. The survivors are wrapped by a new one first.
extension VolumeMount {
    /// What a shredding has destroyed, and how that was tried.
    package struct Shredded: Sendable, Equatable {
        /// KEK versions that are destroyed for good now; never empty.
        package var destroyed: [KeyVersion]
        package var versionKeys: Int
        /// The versions whose wraps, as old copies of the keyring have them, were tried; each was refused.
        package var refused: [KeyVersion]
        package var active: KeyVersion
        /// Headers of survivors that were wrapped anew.
        package var rewrapped: UInt64
        package var generation: UInt64
    }

    /// Refuses where old copies of the keyring open a KEK with the CMK alone.
    package func requireGuarded(_ zone: ZoneID) throws(VolumeError) {
        guard let keyring = keyring(zone) else { throw .missing("\(VolumeFiles.zones)/\(zone.rawValue)") }
        if let version = keyring.unguardedKEKs.first { throw .unguarded(version) }
    }

    /// Refuses where a zone made in that directory would lie in one in which files are being deleted to be shredded.
    package func requireNotShredding(_ directory: Inode) throws(VolumeError) {
        let zone: ZoneID
        do throws(Errno) { zone = try volume.handle(directory).zone } catch {
            throw .lower(error, "reading the directory")
        }
        if volume.shredding.contains(zone) { throw .shredding(zone) }
    }

    /// Notes that a shredding has begun: if the process dies from here on, the next mount finishes it. Files are deleted after this.
    /// Whatever zone is made in the zone later is refused, and whatever was made before is there to be seen when this returns.
    ///
    /// Returns the notes that this one takes the place of.
    @discardableResult
    package func beginShredding(_ zone: ZoneID) throws(VolumeError) -> [PendingWork] {
        try requireGuarded(zone)
        var replaced: [PendingWork] = []
        try changeKeyring(zone) { (keyring, keys) throws(VolumeError) in
            // Its files' headers are wrapped by the KEKs of two zones, and one of them alone would be destroyed.
            guard !assignments.contains(where: { $0.zone == zone || $0.work.source == zone }) else {
                throw .unassignable(.underWay)
            }
            // One that is not finished has its KEK already, and that wraps what is deleted from here on: this one includes it.
            replaced = keyring.pending.filter { $0.kind == .shred }
            keyring.pending.removeAll { $0.kind == .shred }
            guard keyring.pending.count < PendingWork.maximumCount else { throw .keyring(.full) }
            keyring.pending.append(
                PendingWork(.shred, version: keys.activeKEK.version, started: Volume.now, flags: [.paused]))
            return keys
        }
        // Who was about to make a zone without knowing of it has done so.
        volume.placing.writing {}
        return replaced
    }

    /// Nothing was deleted: the note goes, and those that it took the place of are there again.
    package func cancelShredding(
        _ zone: ZoneID, restoring replaced: [PendingWork], editing: KeyringEditing
    ) throws(VolumeError) {
        try changeKeyring(zone) { (keyring, keys) throws(VolumeError) in
            keyring.pending.removeAll { $0.kind == .shred && $0.flags.contains(.paused) }
            keyring.pending += replaced.prefix(max(0, PendingWork.maximumCount - keyring.pending.count))
            try gatherMetadataKeys(of: &keyring, keys, editing)
            return keys
        }
    }

    /// Those that a KEK rotation has left under older KEKs for the sake of a shredding, if none is noted any more.
    private func gatherMetadataKeys(
        of keyring: inout ZoneKeyring, _ keys: ZoneKeys, _ editing: KeyringEditing
    ) throws(VolumeError) {
        guard !keyring.pending.contains(where: { $0.kind == .shred }) else { return }
        do throws(KeyringError) { try editing.gatherMetadataKeys(of: &keyring, keys) } catch { throw .keyring(error) }
    }

    /// Makes a new KEK, wraps the survivors by it, destroys all versions before it in keyring and tokens, and tries the wraps that
    /// they had. What is deleted before this is shredded; after a failure all of it can be repeated.
    ///
    /// With `resuming`, a note of the keyring, it goes on where that one stopped: nothing was deleted since its KEK was made.
    package func finishShredding(
        _ zone: ZoneID, resuming work: PendingWork? = nil, editing: KeyringEditing, control: SweepControl,
        threads: Int = 2
    ) throws(VolumeError) -> Shredded {
        try requireGuarded(zone)
        try requireFlushes()
        let active: KeyVersion
        if let work, canResume(zone, work) {
            active = work.version
        } else {
            active = try rotateKEK(zone, editing: editing, shred: true)
        }
        try rewrap(zone, control: control, threads: threads)
        let rewrapped = control.progress.changed
        try renewLinks(zone, editing: editing, control: control, threads: threads)
        guard !control.isCancelled, let before = keyring(zone) else { throw .lower(.interrupted, "shredding") }
        let old = before.keks.filter { $0.version < active && $0.state != .destroyed }
        let coverage = try coverage(zone, threads: threads)
        guard coverage.failed == 0 else { throw .incomplete(failed: coverage.failed, coverage.failures) }
        for kek in old {
            if let count = coverage.keks[kek.version], count.objects > 0 {
                throw .stillProtects(kek.version, count: count.objects, paths: count.paths)
            }
        }
        for kek in old { try destroy(zone, kek.version, untilProven: true, editing: editing) }
        var versionKeys = try purge(zone, editing: editing)
        let (refused, more) = try prove(zone, before: active, editing: editing)
        versionKeys += more
        try changeKeyring(zone) { (keyring, keys) throws(VolumeError) in
            editing.forgetProven(refused, in: &keyring)
            keyring.pending.removeAll { $0.kind == .shred && $0.version == active && !$0.flags.contains(.paused) }
            try gatherMetadataKeys(of: &keyring, keys, editing)
            return keys
        }
        return Shredded(
            destroyed: refused, versionKeys: versionKeys, refused: refused, active: active,
            rewrapped: rewrapped, generation: keyring(zone)?.generation ?? 0)
    }

    /// Links, and attributes of what has no header, have no key of their own: what was deleted is under the metadata keys that the survivors
    /// are under. So those are sealed by the new one, and the old ones dropped, before the KEKs go that wrap them.
    private func renewLinks(
        _ zone: ZoneID, editing: KeyringEditing, control: SweepControl, threads: Int
    ) throws(VolumeError) {
        guard !control.isCancelled, let keyring = keyring(zone), keyring.metadataKeys.count > 1 else { return }
        let moves = volume.moves.begin()
        defer { volume.moves.end(moves, volume.table) }
        let sweep = ReencryptSweep(volume, zone, nil, scope: nil, control, threads: threads)
        SweepWalk(volume: volume, visitor: sweep, control: control, moves: moves, threads: threads).run()
        sweep.resealLinked()
        guard !control.isCancelled else { return }
        try flush("sealing links anew")
        guard control.progress.failed == 0 else {
            throw .incomplete(failed: control.progress.failed, control.failures)
        }
        try dropMetadataKeys(zone, editing: editing)
    }

    /// Its files were all deleted before its KEK and its metadata key were made, and versions before that are left to destroy or to try.
    private func canResume(_ zone: ZoneID, _ work: PendingWork) -> Bool {
        guard !work.flags.contains(.paused), let keyring = keyring(zone) else { return false }
        // An older program made none.
        guard keyring.metadataKeys.contains(where: { $0.created >= work.started }) else { return false }
        return keyring.keks.contains { $0.version < work.version && ($0.state != .destroyed || $0.isUnproven) }
    }

    /// Tries the wraps of all destroyed versions that were not tried yet. Where one still opens its version keys are destroyed once more:
    /// another node of the HSM may have had them.
    private func prove(
        _ zone: ZoneID, before active: KeyVersion, editing: KeyringEditing
    ) throws(VolumeError) -> (refused: [KeyVersion], versionKeys: Int) {
        guard let keyring = keyring(zone) else { throw .missing("\(VolumeFiles.zones)/\(zone.rawValue)") }
        var refused: [KeyVersion] = []
        var versionKeys = 0
        for kek in keyring.keks where kek.version < active && kek.isUnproven {
            if !editing.isRefused(kek.version, with: keyring) {
                do throws(KeyringError) {
                    versionKeys += try editing.destroyVersionKeys(kek.version) { keyring }
                } catch {
                    throw .keyring(error)
                }
                guard editing.isRefused(kek.version, with: keyring) else { throw .notDestroyed(kek.version) }
            }
            refused.append(kek.version)
        }
        return (refused, versionKeys)
    }
}
