import CLinux
import KeyManagement
import Storage
import VolumeFormat

/// Rotation of a mounted (or, for the time of a command, opened) volume. One administrative change at a time: the caller sees to
/// that. CMK owners are called with no lock held that a program waits for.
extension VolumeMount {
    /// Edits a copy of a zone's keyring by `edit`, which may call CMK owners, and puts it in place if nothing else changed it
    /// meanwhile (EBUSY then).
    package func editKeyring<R>(
        _ zone: ZoneID, _ edit: (inout ZoneKeyring, ZoneKeys) throws(KeyringError) -> (ZoneKeys, R)
    ) throws(VolumeError) -> R {
        guard let before = keyring(zone) else { throw .missing("\(VolumeFiles.zones)/\(zone.rawValue)") }
        let keys: ZoneKeys
        do throws(Errno) { keys = try volume.zone(zone).storingKeys() } catch {
            throw .lower(error, "changing a zone's keyring")
        }
        var after = before
        let newKeys: ZoneKeys
        let result: R
        do throws(KeyringError) { (newKeys, result) = try edit(&after, keys) } catch { throw .keyring(error) }
        try changeKeyring(zone) { (keyring, _) throws(VolumeError) in
            guard keyring == before else { throw .lower(.busy, "changing a zone's keyring") }
            keyring = after
            return newKeys
        }
        return result
    }

    /// A new KEK version; what has to be rewrapped is noted in the keyring. With `compromised`, so is a re-encryption.
    package func rotateKEK(
        _ zone: ZoneID, editing: KeyringEditing, compromised: Bool = false, shred: Bool = false
    ) throws(VolumeError) -> KeyVersion {
        let now = compromised ? Self.nextSecond() : Volume.now
        let version = try editKeyring(zone) { (keyring, keys) throws(KeyringError) -> (ZoneKeys, KeyVersion) in
            // Until a shredding has dropped them, copies of the keyring are not to have them under a KEK that outlives it.
            let keepsMetadata = shred || keyring.pending.contains { $0.kind == .shred }
            var new = try editing.addKEK(
                to: &keyring, keys, old: compromised ? .compromised : .deactivated,
                keepsMetadata: keepsMetadata, now: now)
            if compromised || shred { new = try editing.addMetadataKey(to: &keyring, new, now: now) }
            let version = new.activeKEK.version
            // The newest rewrap includes those before it; what waits for another kind goes on.
            keyring.pending.removeAll { $0.kind == .rewrap || (shred && $0.kind == .shred) }
            guard keyring.pending.count + 2 <= PendingWork.maximumCount else { throw .full }
            keyring.pending.append(PendingWork(shred ? .shred : .rewrap, version: version, started: now))
            if compromised {
                // Its KEK's own date says that it is not dated yet.
                keyring.pending.append(PendingWork(.reencrypt, version: version, started: now))
            }
            return (new, version)
        }
        volume.waitForKeyUsers()
        if compromised { try dateUndated(zone) }
        return version
    }

    /// The owner took its time over the new KEK; meanwhile files got DEKs that the old one wraps. Those are due, too. It comes once, after
    /// a crash as well.
    private func dateUndated(_ zone: ZoneID) throws(VolumeError) {
        let isUndated = { (work: PendingWork, keyring: ZoneKeyring) in
            let made = keyring.keks.first { $0.version == work.version }?.history.first?.at
            return work.kind == .reencrypt && work.scope == PendingWork.wholeZone && work.started == made
                && !work.flags.contains(.sparesAhead)
        }
        guard let before = keyring(zone), before.pending.contains(where: { isUndated($0, before) }) else { return }
        let now = Self.nextSecond()
        try changeKeyring(zone) { (keyring, keys) throws(VolumeError) in
            for index in keyring.pending.indices where isUndated(keyring.pending[index], keyring) {
                keyring.pending[index].started = max(now, keyring.pending[index].started + 1)
            }
            return keys
        }
    }

    /// Wraps everything in a zone by its active KEK, and takes the note of it away when all is durable.
    package func rewrap(_ zone: ZoneID, control: SweepControl, threads: Int = 2) throws(VolumeError) {
        try requireFlushes()
        try dateUndated(zone)
        control.expect(totals.withLock { $0[zone] })
        let moves = volume.moves.begin()
        defer { volume.moves.end(moves, volume.table) }
        SweepWalk(
            volume: volume, visitor: RewrapSweep(volume, zone, control), control: control, moves: moves,
            threads: threads
        ).run()
        guard !control.isCancelled else { return }
        keepTotal(zone, control)
        do {
            let changed = try volume.rewrapUnlinked(zone)
            control.count { $0.changed += changed }
        } catch { throw .lower(error, "rewrapping") }
        try flush("rewrapping")
        guard control.progress.failed == 0 else {
            throw .incomplete(failed: control.progress.failed, control.failures)
        }
        try forget(zone) { $0.kind == .rewrap }
    }

    /// Notes a re-encryption in the keyring. One of a whole zone gets a new metadata key, too, unless `cutoff` (seconds since 1970)
    /// limits it to DEKs made then or before, and the newest metadata key is younger. Without one, DEKs dated after the present are due, too.
    package func beginReencryption(
        _ zone: ZoneID, scope: UniqueID?, rate: UInt32, flags: PendingWork.Flags, editing: KeyringEditing,
        cutoff: UInt64? = nil
    ) throws(VolumeError) -> PendingWork {
        let now = cutoff ?? Self.nextSecond()
        let work = try editKeyring(zone) { (keyring, keys) throws(KeyringError) -> (ZoneKeys, PendingWork) in
            let work = PendingWork(
                .reencrypt, version: keys.activeKEK.version, started: now,
                flags: cutoff == nil ? flags : flags.union(.sparesAhead), rate: rate,
                scope: scope ?? PendingWork.wholeZone)
            // The newer one includes the older.
            keyring.pending.removeAll { $0.kind == .reencrypt && (scope == nil || $0.scope == work.scope) }
            guard keyring.pending.count < PendingWork.maximumCount else { throw .full }
            keyring.pending.append(work)
            let newest = keyring.metadataKeys.map(\.created).max() ?? 0
            let isDue = scope == nil && (cutoff.map { newest <= $0 } ?? true)
            return (isDue ? try editing.addMetadataKey(to: &keyring, keys, now: max(now, Volume.now)) : keys, work)
        }
        volume.waitForKeyUsers()
        return work
    }

    /// Waits for the clock's next second, and gives it: every DEK that there is was made before, or in it. DEKs are dated in whole
    /// seconds, and those of a re-encryption one after its own start.
    static func nextSecond() -> UInt64 {
        let now = Volume.now
        var steps = 0
        while Volume.now <= now, steps < 100 {
            usleep(20_000)
            steps += 1
        }
        return max(now + 1, Volume.now)
    }

    /// A new metadata key alone: links, and attributes of what has no header, are sealed by it. No file's DEK is old enough for
    /// this work's start.
    package func beginMetadataRenewal(_ zone: ZoneID, editing: KeyringEditing) throws(VolumeError) {
        let now = Volume.now
        try editKeyring(zone) { (keyring, keys) throws(KeyringError) -> (ZoneKeys, Void) in
            guard keyring.pending.count < PendingWork.maximumCount else { throw .full }
            keyring.pending.append(
                PendingWork(
                    .reencrypt, version: keys.activeKEK.version, started: 0, flags: [.yields, .sparesAhead]))
            return (try editing.addMetadataKey(to: &keyring, keys, now: now), ())
        }
        volume.waitForKeyUsers()
    }

    /// Changes how noted work is done.
    package func update(_ zone: ZoneID, _ work: PendingWork) throws(VolumeError) {
        try changeKeyring(zone) { (keyring, keys) throws(VolumeError) in
            for index in keyring.pending.indices where keyring.pending[index].isSame(as: work) {
                keyring.pending[index] = work
            }
            return keys
        }
    }

    /// Drops noted work that is not wanted any more. What is done stays done.
    package func cancel(_ zone: ZoneID, _ kind: PendingWork.Kind) throws(VolumeError) {
        try forget(zone) { $0.kind == kind }
    }

    /// Does a noted re-encryption, and takes the note away when all is durable. Returns how many files got new DEKs.
    package func reencrypt(
        _ zone: ZoneID, _ work: PendingWork, editing: KeyringEditing, control: SweepControl, threads: Int = 2
    ) throws(VolumeError) -> UInt64 {
        try requireFlushes()
        control.setRate(bytesPerSecond: UInt64(work.rate) * 1_000_000)
        control.setYields(work.flags.contains(.yields))
        // Never the other way round: it may have been paused just now.
        if work.flags.contains(.paused) { control.setPaused(true) }
        let limited = work.scope != PendingWork.wholeZone
        if !limited { control.expect(totals.withLock { $0[zone] } ?? count(zone, control, threads: threads)) }
        let moves = volume.moves.begin()
        defer { volume.moves.end(moves, volume.table) }
        let scope = work.scope == PendingWork.wholeZone ? nil : work.scope
        let sweep = ReencryptSweep(volume, zone, DueDEKs(work), scope: scope, control, threads: threads)
        SweepWalk(volume: volume, visitor: sweep, control: control, moves: moves, threads: threads).run()
        sweep.resealLinked()
        guard !control.isCancelled else { return sweep.count }
        try flush("re-encrypting")
        guard control.progress.failed == 0 else {
            throw .incomplete(failed: control.progress.failed, control.failures)
        }
        if scope == nil {
            keepTotal(zone, control)
            try dropMetadataKeys(zone, editing: editing)
        }
        try forget(zone) { $0.kind == work.kind && $0.started == work.started && $0.scope == work.scope }
        return sweep.count
    }

    /// How much there is in a zone, by names and lengths alone. Ends with `control`.
    private func count(_ zone: ZoneID, _ control: SweepControl, threads: Int) -> SweepControl.Total {
        let counting = SweepControl()
        let moves = volume.moves.begin()
        defer { volume.moves.end(moves, volume.table) }
        SweepWalk(
            volume: volume, visitor: CountSweep(zone, counting, endingWith: control), control: counting, moves: moves,
            threads: threads
        ).run()
        return SweepControl.Total(files: counting.progress.files, bytes: counting.progress.bytes)
    }

    private func keepTotal(_ zone: ZoneID, _ control: SweepControl) {
        let progress = control.progress
        totals.withLock { $0[zone] = SweepControl.Total(files: progress.files, bytes: progress.bytes) }
    }

    /// Takes the old metadata keys away: nothing may be sealed by them any more.
    func dropMetadataKeys(_ zone: ZoneID, editing: KeyringEditing) throws(VolumeError) {
        guard let keyring = keyring(zone), keyring.metadataKeys.count > 1,
            let newest = keyring.metadataKeys.map(\.version).max()
        else { return }
        let coverage = try coverage(zone)
        guard coverage.failed == 0 else { throw .incomplete(failed: coverage.failed, coverage.failures) }
        // One that a program moved out of the sweep's way: the next sweep finds it.
        let left = coverage.metadata.filter { $0.key != newest }.values.reduce(0, +)
        guard left == 0 else { throw .incomplete(failed: left, ["links under an older metadata key"]) }
        do { try volume.removeSuccessors(zone) } catch { throw .lower(error, "sealing links anew") }
        try editKeyring(zone) { (keyring, keys) throws(KeyringError) -> (ZoneKeys, Void) in
            (editing.dropOldMetadataKeys(from: &keyring, keys), ())
        }
    }

    /// Takes notes of work that is done out of a keyring.
    func forget(_ zone: ZoneID, _ isDone: (PendingWork) -> Bool) throws(VolumeError) {
        guard keyring(zone)?.pending.contains(where: isDone) == true else { return }
        try changeKeyring(zone) { (keyring, keys) throws(VolumeError) in
            keyring.pending.removeAll(where: isDone)
            return keys
        }
    }

    /// Counts what each key version of a zone protects; and how old the DEKs are in steps of `ageStep` seconds, if it is not 0.
    package func coverage(
        _ zone: ZoneID, control: SweepControl = SweepControl(), threads: Int = 2, ageStep: UInt64 = 0
    ) throws(VolumeError) -> Coverage {
        let moves = volume.moves.begin()
        defer { volume.moves.end(moves, volume.table) }
        control.expect(totals.withLock { $0[zone] })
        let sweep = CoverageSweep(volume, zone, control, ageStep: ageStep)
        SweepWalk(volume: volume, visitor: sweep, control: control, moves: moves, threads: threads).run()
        if control.isCancelled {
            do throws(Errno) { _ = try volume.storingKeys(zone) } catch { throw .lower(error, "counting") }
        }
        sweep.countUnlinked()
        return sweep.result
    }

    /// Destroys a KEK version that protects nothing any more: in the keyring first, then its version keys in the tokens. Refused
    /// while an object needs it, or cannot be read. Returns how many version keys there were.
    package func retire(
        _ zone: ZoneID, _ version: KeyVersion, editing: KeyringEditing, threads: Int = 2
    ) throws(VolumeError) -> Int {
        guard let entry = keyring(zone)?.keks.first(where: { $0.version == version }), entry.state != .active,
            entry.state != .destroyed
        else { throw .keyring(.inUse) }
        // What is on its way to the lower storage counts as there.
        try flush("flushing the lower storage")
        let coverage = try coverage(zone, threads: threads)
        guard coverage.failed == 0 else { throw .incomplete(failed: coverage.failed, coverage.failures) }
        if let count = coverage.keks[version], count.objects > 0 {
            throw .stillProtects(version, count: count.objects, paths: count.paths)
        }
        // A count does not make up for a rewrap that has not met everything: both have to say that nothing needs the version.
        guard keyring(zone)?.pending.contains(where: { $0.kind == .rewrap || $0.kind == .shred }) != true else {
            throw .rewrapPending
        }
        try destroy(zone, version, editing: editing)
        return try purge(zone, editing: editing)
    }

    /// The keyring forgets a version; the note says that its version keys are to follow. With `untilProven` its wraps stay to be tried.
    func destroy(
        _ zone: ZoneID, _ version: KeyVersion, untilProven: Bool = false, editing: KeyringEditing
    ) throws(VolumeError) {
        // A crash may have come between a new KEK and this.
        if zone == .root {
            let keys: ZoneKeys
            do throws(Errno) { keys = try volume.storingKeys(zone) } catch {
                throw .lower(error, "sealing the volume's description")
            }
            try resealVolumeFiles(keys)
        }
        try editKeyring(zone) { (keyring, keys) throws(KeyringError) -> (ZoneKeys, Void) in
            let new = try editing.destroyKEK(version, in: &keyring, keys, untilProven: untilProven, now: Volume.now)
            try keyring.notePurge(of: version, now: Volume.now)
            return (new, ())
        }
    }

    /// Destroys the version keys of the versions that notes name, but for those that the keyring still uses.
    package func purge(_ zone: ZoneID, editing: KeyringEditing) throws(VolumeError) -> Int {
        var destroyed = 0
        var failure: KeyringError?
        for work in keyring(zone)?.pending ?? [] where work.kind == .purge {
            guard let before = keyring(zone) else { break }
            // What one token refuses does not keep the others' from going.
            do throws(KeyringError) {
                destroyed += try editing.destroyVersionKeys(work.version) { keyring(zone) ?? before }
            } catch {
                failure = failure ?? error
                continue
            }
            try forget(zone) { $0 == work }
        }
        if let failure { throw .keyring(failure) }
        return destroyed
    }

    /// Other CMKs for a zone: every KEK is wrapped under them, and the version keys beside the old ones are destroyed. The old CMKs
    /// themselves stay where they are, deactivated in the keyring. Returns how many version keys were destroyed.
    ///
    /// `onReplaced` is called when the keyring is stored: the new CMKs hold, whatever comes of the old ones' version keys.
    package func replaceCMKs(
        _ zone: ZoneID, with cmks: [any CustomerMasterKey], editing: KeyringEditing, onReplaced: () -> Void = {}
    ) throws(VolumeError) -> Int {
        try editKeyring(zone) { (keyring, keys) throws(KeyringError) -> (ZoneKeys, Void) in
            let now = Volume.now
            try editing.replaceCMKs(of: &keyring, with: cmks, now: now)
            for kek in keyring.keks where kek.state.mayDecrypt {
                try keyring.notePurge(of: kek.version, now: now)
            }
            return (keys, ())
        }
        onReplaced()
        return try purge(zone, editing: editing)
    }
}
