import CLinux
import KeyManagement
import Storage
import VolumeFormat

/// A manifest's file: sealed as the volume's own files are, in a directory that the operator names.
struct ManifestFile: Sendable {
    let path: String
    private let directory: String
    private let name: String

    init(path: String) {
        self.path = path
        let slash = path.lastIndex(of: "/")
        directory = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        name = slash.map { String(path[path.index(after: $0)...]) } ?? path
    }

    /// `nil` where there is none.
    func read(_ keys: ZoneKeys) throws(VolumeError) -> ManifestList? {
        let bytes: [UInt8]
        do {
            let parent = try Lower.open(path: directory, flags: O_RDONLY | O_DIRECTORY)
            let size = try Lower.stat(parent, name).st_size
            guard size <= ManifestList.maximumEncodedSize + SealedFile.trailer else { throw Errno.fileTooBig }
            bytes = try AtomicFile.read(parent, name, limit: Int(size))
        } catch let error as Errno {
            if error == .noEntry { return nil }
            throw .lower(error, "reading the manifest \(path)")
        } catch { throw .cipher }
        let sealed: SealedFile
        let list: ManifestList
        do {
            sealed = try SealedFile(parsing: bytes, of: "manifest")
            list = try sealed.body.withUnsafeBufferPointer { (body) throws(FormatError) in
                try ManifestList(parsing: UnsafeRawBufferPointer(body))
            }
        } catch { throw .manifest(path, "is damaged: \(error.code.rawValue)") }
        do throws(VolumeError) { try VolumeFiles.authenticate(sealed, keys, path) } catch {
            throw .manifest(path, "is not authentic")
        }
        guard list.volume == keys.volume else { throw .manifest(path, "belongs to another volume") }
        return list
    }

    func write(_ list: ManifestList, _ keys: ZoneKeys) throws(VolumeError) {
        let bytes = try VolumeFiles.seal(list.authenticatedBytes, keys)
        do {
            let parent = try Lower.open(path: directory, flags: O_RDONLY | O_DIRECTORY)
            try AtomicFile.replace(parent, name, with: bytes)
        } catch { throw .lower(error, "writing the manifest \(path)") }
    }
}

extension VolumeMount {
    /// How a mount uses a manifest.
    package struct ManifestUse: Sendable {
        package var path: String
        /// There was one, so it must be there.
        package var mustExist: Bool
        /// Whatever the files say of themselves becomes what is listed: a backup was restored.
        package var isLearning: Bool
        package init(path: String, mustExist: Bool, isLearning: Bool = false) {
            self.path = path
            self.mustExist = mustExist
            self.isLearning = isLearning
        }
    }

    /// Reads the manifest, or begins one.
    static func openManifest(
        _ use: ManifestUse?, _ keys: ZoneKeys, readOnly: Bool
    ) throws(VolumeError) -> (manifest: Manifest, file: ManifestFile)? {
        guard let use else { return nil }
        let file = ManifestFile(path: use.path)
        if use.isLearning {
            let manifest = Manifest(ManifestList(volume: keys.volume))
            manifest.learn()
            return (manifest, file)
        }
        if let list = try file.read(keys) { return (Manifest(list), file) }
        guard !use.mustExist else { throw .manifest(use.path, "is missing") }
        let list = ManifestList(volume: keys.volume)
        // From now on one that is missing was taken away.
        if !readOnly { try file.write(list, keys) }
        return (Manifest(list), file)
    }

    /// Flushes the lower storage, and then stores what the manifest knows. `covering`: every file that was stored in that epoch or
    /// before is known. Nothing without a manifest. One at a time.
    package func storeManifest(covering epoch: UInt64? = nil) throws(VolumeError) {
        guard let manifest = volume.manifest, let file = manifestFile else { return }
        try manifestWriting.withLock { (_) throws(VolumeError) in
            _ = try manifestKeys()
            let (known, changes) = manifest.snapshot()
            var list = known
            do throws(Errno) { try Lower.syncAll(files.lowerRoot) } catch {
                volume.noteLostFlush([])
                throw .lower(error, "flushing the lower storage")
            }
            if let epoch { list.coveredEpoch = max(list.coveredEpoch, epoch) }
            // Not before: a flush may take long, and a revocation would not find them here.
            try file.write(list, try manifestKeys())
            manifest.stored(list, changes)
        }
    }

    private func manifestKeys() throws(VolumeError) -> ZoneKeys {
        do throws(Errno) { return try volume.zone(.root).storingKeys() } catch {
            throw .lower(error, "sealing the manifest")
        }
    }

    /// The last epoch that has stored headers: what a walk that saw everything covers. A mount that only reads a crashed volume counts
    /// itself as one more, and so will the next one that writes.
    package var lastStoringEpoch: UInt64 {
        volume.options.readOnly && volume.hasFoundCrash ? volume.epoch - 1 : volume.epoch
    }

    /// The manifest was stored when the volume was last unmounted, and no mount without it has written since.
    package var isCompletelyListed: Bool {
        guard let manifest = volume.manifest else { return false }
        return manifest.durable.coveredEpoch + (volume.options.readOnly ? 0 : 1) >= volume.epoch
            && !volume.hasFoundCrash
    }

    /// At the end of a mount: files are listed as far as the mounts before were, and all of this one's.
    func storeLastManifest() throws(VolumeError) {
        // Without the root zone's keys it stays as it is, and does not cover this mount.
        guard let manifest = volume.manifest, (try? volume.storingKeys(.root)) != nil else { return }
        let isComplete = manifest.durable.coveredEpoch + 1 >= volume.epoch
        try storeManifest(covering: isComplete ? volume.epoch : nil)
    }

    /// The same list under another KEK.
    func resealManifest(_ keys: ZoneKeys) throws(VolumeError) {
        guard let manifest = volume.manifest, let file = manifestFile, !volume.options.readOnly else { return }
        try manifestWriting.withLock { (_) throws(VolumeError) in try file.write(manifest.durable, keys) }
    }
}
