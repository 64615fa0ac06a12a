import CLinux
import KeyManagement
import Storage
import Synchronization
import VolumeFormat

/// A volume that this process holds: locked against others, unlocked by its CMK, and marked as mounted until `close`.
package final class VolumeMount: Sendable {
    package let volume: Volume
    package let keyring: ZoneKeyring
    private let files: VolumeFiles
    // flock(2) lives as long as this descriptor, so a crash leaves no lock behind.
    private let lockFile: Descriptor
    private let state: Mutex<VolumeState>

    /// Takes the lock, unwraps the keys, authenticates the volume's files, and notes the new epoch durably.
    package init(
        lower: String, options: Volume.Options, unlocking: KeyringUnlocking,
        onDamage: @escaping @Sendable (Damage) -> Void
    ) throws(VolumeError) {
        files = try VolumeFiles(lower: lower)
        let (description, sealed) = try files.readDescription()
        lockFile = try Self.lock(files, readOnly: options.readOnly)
        keyring = try files.keyring(.root)
        guard keyring.volume == description.volume, keyring.zone == .root else {
            throw .notAuthentic("\(VolumeFiles.zones)/0")
        }
        let keys: ZoneKeys
        do { keys = try unlocking.unlock(keyring) } catch { throw .keyring(error) }
        try VolumeFiles.authenticate(sealed, keys, VolumeFiles.description)
        var current = try files.readState(keys)
        if current.mounted { current.lastCrashedEpoch = current.epoch }
        if !options.readOnly {
            current.epoch += 1
            current.mounted = true
            try files.writeState(current, keys)
        }
        state = Mutex(current)
        do {
            volume = try Volume(
                description: description, options: options, epoch: current.epoch,
                lastCrashedEpoch: current.lastCrashedEpoch, lowerRoot: files.lowerRoot,
                volumeDirectory: files.directory, keys: keys, onDamage: onDamage)
            // A root that cannot be read is found now, not at the first program's first call.
            _ = try volume.handle(volume.rootInode)
        } catch { throw .lower(error, "reading the root directory of \(lower)") }
    }

    /// Ends the mount: all that was written is flushed, and only then the volume is marked clean. No operation is under way.
    package func close() throws(VolumeError) {
        guard !volume.options.readOnly else { return }
        do { try Lower.syncAll(files.lowerRoot) } catch { throw .lower(error, "flushing the lower storage") }
        guard !volume.isDirty else { return }
        var last = state.withLock { $0 }
        last.mounted = false
        do { try files.writeState(last, try volume.keys(.root)) } catch let error as VolumeError {
            throw error
        } catch {
            // Revoked: it stays marked as mounted, and the next mount is careful.
            return
        }
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
        guard flock(file.raw, LOCK_EX | LOCK_NB) == 0 else {
            let holder = (try? AtomicFile.read(files.directory, VolumeFiles.lock, limit: 4096)) ?? []
            throw .locked(String(decoding: holder, as: UTF8.self))
        }
        return file
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
