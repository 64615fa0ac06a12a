import CLinux
import KeyManagement
import Storage
import VolumeFormat

/// Makes a new volume in an empty lower directory.
package enum VolumeCreation {
    /// Checks that `lower` can become a volume with such features: it is a directory, and empty. Creates it if it is missing.
    package static func prepare(_ lower: String, features: FeatureFlags = []) throws(VolumeError) {
        if mkdir(lower, 0o700) != 0, Errno.current != .exists { throw .lower(.current, "making \(lower)") }
        let root: Descriptor
        do { root = try Lower.open(path: lower, flags: O_RDONLY | O_DIRECTORY) } catch {
            throw .lower(error, "opening \(lower)")
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 16)
        defer { buffer.deallocate() }
        var found: [String] = []
        do {
            while true {
                let count = try Lower.readDirectory(root, into: buffer)
                if count == 0 { break }
                LowerEntry.forEach(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { entry in
                    if !entry.isDot { found.append(String(decoding: entry.name, as: UTF8.self)) }
                    return true
                }
            }
        } catch { throw .lower(error, "reading \(lower)") }
        // A fresh ext4 has this one; it is no reason to refuse, and no program of the volume sees it.
        found.removeAll { $0 == ReservedName.lostAndFound }
        if found.contains(ReservedName.volumeDirectory) { throw .alreadyVolume }
        guard found.isEmpty else { throw .notEmpty }
        if features.contains(.places) { try tryAttributes(root, lower) }
    }

    /// Not every file system has extended attributes for users, nor does each that has them take them everywhere.
    private static func tryAttributes(_ root: borrowing Descriptor, _ lower: String) throws(VolumeError) {
        let path = root.procPath
        let value = PlaceList(object: UniqueID(high: 0, low: 0), places: [.init(code: Array(repeating: 0, count: 16))])
        do throws(Errno) {
            try value.encoded.withUnsafeBufferPointer { (bytes) throws(Errno) in
                try Lower.setAttribute(path: path, PlaceList.attribute, UnsafeRawBufferPointer(bytes), flags: 0)
            }
            try Lower.removeAttribute(path: path, PlaceList.attribute)
        } catch {
            guard error == .notSupported else { throw .lower(error, "setting an extended attribute of \(lower)") }
            throw .noUserAttributes
        }
    }

    /// Writes the volume: everything into a temporary directory first, so that a crash leaves no half of one. `finish` adds to what
    /// will be `.lethefs`, before the volume is there.
    package static func create(
        _ lower: String, volume: UniqueID, cmks: [any CustomerMasterKey], policy: ZoneKeyring.Policy,
        unlocking: KeyringUnlocking, features: FeatureFlags = [], settings: [VolumeSetting: UInt64] = [:],
        finish: (Descriptor, ZoneKeys) throws(VolumeError) -> Void = { _, _ in }
    ) throws(VolumeError) {
        let made: (keyring: ZoneKeyring, keys: ZoneKeys)
        do {
            made = try unlocking.create(volume: volume, zone: .root, policy: policy, cmks: cmks, now: Volume.now)
        } catch { throw .keyring(error) }
        do {
            let root = try Lower.open(path: lower, flags: O_RDONLY | O_DIRECTORY)
            let temporary = ReservedName.volumeDirectory + ".new"
            try Lower.makeDirectory(root, temporary, mode: 0o700)
            let directory = try Lower.open(root, temporary, flags: O_RDONLY | O_DIRECTORY)
            try Lower.makeDirectory(directory, VolumeFiles.zones, mode: 0o700)
            try Lower.makeDirectory(directory, VolumeFiles.links, mode: 0o700)
            if features.contains(.pageTree) { try Lower.makeDirectory(directory, VolumeFiles.trees, mode: 0o700) }
            let (header, keys) = try Volume.makeDirectoryHeader(volume: volume, keys: made.keys, now: Volume.now)
            try writeFiles(directory, made, root: header.directory, features, settings)
            try finish(directory, made.keys)
            let text = try Volume.encodedHeader(header, keys: keys)
            try Lower.symlink(target: text, root, ReservedName.directoryHeader)
            try Lower.rename(root, temporary, root, ReservedName.volumeDirectory)
            try Lower.sync(root)
        } catch let error as VolumeError {
            throw error
        } catch let error as Errno {
            throw .lower(error, "making the volume in \(lower)")
        } catch {
            throw .cipher
        }
    }

    private static func writeFiles(
        _ directory: Descriptor, _ made: (keyring: ZoneKeyring, keys: ZoneKeys), root: UniqueID,
        _ features: FeatureFlags, _ settings: [VolumeSetting: UInt64]
    ) throws {
        let zones = try Lower.open(directory, VolumeFiles.zones, flags: O_RDONLY | O_DIRECTORY)
        try AtomicFile.replace(zones, "\(made.keyring.zone.rawValue)", with: made.keyring.encoded)
        let volume = made.keyring.volume
        var description = VolumeDescription(volume: volume, created: Volume.now, rootDirectory: root)
        description.features.formUnion(features)
        description.settings = settings
        try AtomicFile.replace(
            directory, VolumeFiles.description, with: try VolumeFiles.seal(description.authenticatedBytes, made.keys))
        let state = VolumeState(volume: volume, epoch: 0, mounted: false, lastCrashedEpoch: 0)
        try AtomicFile.replace(
            directory, VolumeFiles.state, with: try VolumeFiles.seal(state.authenticatedBytes, made.keys))
        try AtomicFile.replace(directory, VolumeFiles.lock, with: [])
    }
}
