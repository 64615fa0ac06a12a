import CLinux
import KeyManagement
import Storage
import Synchronization
import VolumeFormat

/// A volume that this process holds: locked against others, unlocked by its CMK, and marked as mounted until `close`.
package final class VolumeMount: Sendable {
    package let volume: Volume
    let files: VolumeFiles
    let manifestFile: ManifestFile?
    /// Held while the manifest is stored; taken before the manifest's own lock.
    let manifestWriting = Mutex<Void>(())
    /// `.lethefs`.
    package var volumeDirectory: Descriptor { files.directory }
    let unlocking: KeyringUnlocking
    // flock(2) lives as long as this descriptor, so a crash leaves no lock behind.
    private let lockFile: Descriptor
    private let state: Mutex<VolumeState>
    /// The state that `close` stores, sealed ahead: the root zone may have no keys then.
    private let cleanState: Mutex<[UInt8]>
    /// The description's settings as they are stored. Leaf lock.
    private let currentSettings: Mutex<[VolumeSetting: UInt64]>
    /// Held while description and state are sealed and stored; taken after `keyringChange`.
    private let sealing = Mutex<Void>(())
    /// How much there was in each zone when a sweep last went over all of it. Leaf lock.
    let totals = Mutex<[ZoneID: SweepControl.Total]>([:])
    /// Keyrings as they are stored. Leaf lock.
    let keyrings: Mutex<[ZoneID: ZoneKeyring]>
    /// Held while a keyring is changed and stored; no call to a CMK's owner under it. Taken before `keyrings` and the zones' locks.
    let keyringChange = Mutex<Void>(())
    /// Zones that could not be unlocked at the mount, and why; they are closed.
    package let lockedZones: [ZoneID: KeyringError]

    /// Takes the lock, unwraps the keys, authenticates the volume's files, and notes the new epoch durably.
    package init(
        lower: String, options: Volume.Options, unlocking: KeyringUnlocking, manifest use: ManifestUse? = nil,
        onDamage: @escaping @Sendable (Damage) -> Void
    ) throws(VolumeError) {
        files = try VolumeFiles(lower: lower)
        self.unlocking = unlocking
        let (description, sealed) = try files.readDescription()
        lockFile = try Self.lock(files, readOnly: options.readOnly)
        let root = try files.keyring(.root)
        guard root.volume == description.volume, root.zone == .root else {
            throw .notAuthentic("\(VolumeFiles.zones)/0")
        }
        let keys: ZoneKeys
        do { keys = try unlocking.unlock(root) } catch { throw .keyring(error) }
        try VolumeFiles.authenticate(sealed, keys, VolumeFiles.description)
        let others = try Self.otherZones(files, description.volume, unlocking)
        keyrings = Mutex(others.keyrings.merging([.root: root]) { $1 })
        lockedZones = others.failures
        // Before the volume is marked as mounted: without its manifest nothing is served, and nothing has happened.
        let manifest = try Self.openManifest(use, keys, readOnly: options.readOnly)
        manifestFile = manifest?.file
        var current = try files.readState(keys)
        if current.mounted { current.lastCrashedEpoch = current.epoch }
        if !options.readOnly {
            current.epoch += 1
            current.mounted = true
        }
        state = Mutex(current)
        currentSettings = Mutex(description.settings)
        cleanState = Mutex(try Self.sealClean(current, keys))
        do {
            volume = try Volume(
                description: description, options: options,
                // A mount that stores nothing is a new one all the same: what the crashed one stored is in doubt.
                epoch: options.readOnly && current.mounted ? current.epoch + 1 : current.epoch,
                lastCrashedEpoch: current.lastCrashedEpoch, lowerRoot: files.lowerRoot,
                volumeDirectory: files.directory, zones: [Zone(keys)] + others.zones, manifest: manifest?.manifest,
                onDamage: onDamage)
            updateTransitions()
            // A root that cannot be read is found now, not at the first program's first call.
            _ = try volume.handle(volume.rootInode)
        } catch { throw .lower(error, "reading the root directory of \(lower)") }
        // Last, for what fails before has not been a mount; and nothing is served before.
        if !options.readOnly { try files.writeState(current, keys) }
    }

    /// The zones but the root: each with its keys, or closed where they cannot be had. One that fails does not keep the others away.
    private static func otherZones(
        _ files: VolumeFiles, _ volume: UniqueID, _ unlocking: KeyringUnlocking
    ) throws(VolumeError) -> (zones: [Zone], keyrings: [ZoneID: ZoneKeyring], failures: [ZoneID: KeyringError]) {
        var zones: [Zone] = []
        var keyrings: [ZoneID: ZoneKeyring] = [:]
        var failures: [ZoneID: KeyringError] = [:]
        for id in try files.zoneIDs() where id != .root {
            let keyring = try files.keyring(id)
            guard keyring.volume == volume, keyring.zone == id else {
                throw .notAuthentic("\(VolumeFiles.zones)/\(id.rawValue)")
            }
            keyrings[id] = keyring
            do throws(KeyringError) { zones.append(Zone(try unlocking.unlock(keyring))) } catch {
                failures[id] = error
                zones.append(Zone(closed: id, reason: error.isRefusal ? .keyRevoked : .noKey))
            }
        }
        return (zones, keyrings, failures)
    }

    private static func sealClean(_ state: VolumeState, _ keys: ZoneKeys) throws(VolumeError) -> [UInt8] {
        var last = state
        last.mounted = false
        return try VolumeFiles.seal(last.authenticatedBytes, keys)
    }

    /// After the root zone's active KEK has changed: what it authenticates is sealed under the new one.
    func resealVolumeFiles(_ keys: ZoneKeys) throws(VolumeError) {
        try sealing.withLock { (_) throws(VolumeError) in
            let now = state.withLock { $0 }
            try store(settings, keys)
            try files.writeState(now, keys)
            let clean = try Self.sealClean(now, keys)
            cleanState.withLock { $0 = clean }
            files.resealAudit(keys)
            try resealManifest(keys)
        }
    }

    /// The last mount that could write: this one, or, where this one only reads, the one before.
    package var storedEpoch: UInt64 { state.withLock { $0.epoch } }

    /// What the operator decided for the volume, as it is stored now.
    package var settings: [VolumeSetting: UInt64] { currentSettings.withLock { $0 } }

    /// Changes the settings in the volume's description, durably and under the root zone's KEK. One change at a time.
    package func changeSettings(_ change: (inout [VolumeSetting: UInt64]) -> Void) throws(VolumeError) {
        try keyringChange.withLock { (_) throws(VolumeError) in
            let keys: ZoneKeys
            do throws(Errno) { keys = try volume.zone(.root).storingKeys() } catch {
                throw .lower(error, "changing the volume's settings")
            }
            try sealing.withLock { (_) throws(VolumeError) in
                var changed = settings
                change(&changed)
                try store(changed, keys)
                currentSettings.withLock { $0 = changed }
            }
        }
    }

    private func store(_ settings: [VolumeSetting: UInt64], _ keys: ZoneKeys) throws(VolumeError) {
        var description = volume.description
        description.settings = settings
        try files.write(VolumeFiles.description, try VolumeFiles.seal(description.authenticatedBytes, keys))
    }

    /// Ends the mount: all that was written is flushed, and only then the volume is marked clean. No operation is under way.
    ///
    /// `warn` is told of page trees that could not be stored; the header of each file says whether its tree lists all pages, and the next
    /// mount goes by that.
    package func close(warn: (VolumeError) -> Void = { _ in }) throws(VolumeError) {
        guard !volume.options.readOnly else { return }
        do { try volume.storeTrees(isEnding: true) } catch { warn(.lower(error, "storing page trees")) }
        do { try Lower.syncAll(files.lowerRoot) } catch { throw .lower(error, "flushing the lower storage") }
        guard !volume.isDirty else { return }
        try storeLastManifest()
        try files.write(VolumeFiles.state, cleanState.withLock { $0 })
    }

    private static func lock(_ files: VolumeFiles, readOnly: Bool) throws(VolumeError) -> Descriptor {
        let file: Descriptor
        do {
            file = try Lower.open(
                files.directory, VolumeFiles.lock, flags: (readOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_NOCTTY)
        } catch {
            if error == .readOnly { throw .lower(error, "locking the volume") }
            if error == .noEntry { throw .missing(VolumeFiles.lock) }
            throw .lower(error, "locking the volume")
        }
        // A daemon that was killed just now may still be on its way out.
        for attempt in 0..<20 {
            if flock(file.raw, LOCK_EX | LOCK_NB) == 0 { return file }
            if attempt < 19 { usleep(50_000) }
        }
        let holder = (try? AtomicFile.read(files.directory, VolumeFiles.lock, limit: 4096)) ?? []
        throw .locked(String(decoding: holder, as: UTF8.self))
    }

    /// Leaves a line in the lock file for those who find it locked.
    package func describeHolder(_ text: String) {
        guard !volume.options.readOnly else { return }
        let bytes = Array(text.utf8)
        try? Lower.truncate(lockFile, to: 0)
        bytes.withUnsafeBytes { buffer in
            if let start = buffer.baseAddress { try? Lower.write(lockFile, from: start, count: buffer.count, at: 0) }
        }
    }
}
