import CLinux
import Storage
import VolumeFormat

extension VolumeCheck {
    /// Names in a lower directory that are of interest. Encrypted names have neither a dot nor a plus: nothing of a large directory is
    /// kept but the others.
    func lowerNames(
        _ directory: Descriptor,
        where isOfInterest: (UnsafeRawBufferPointer) -> Bool = {
            $0.contains(UInt8(ascii: ".")) || $0.contains(UInt8(ascii: "+"))
        }
    ) throws(Errno) -> [String] {
        let stream = try Lower.open(directory, ".", flags: O_RDONLY | O_DIRECTORY)
        let records = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 16)
        defer { records.deallocate() }
        var names: [String] = []
        while true {
            let used = try Lower.readDirectory(stream, into: records)
            if used == 0 { return names }
            LowerEntry.forEach(UnsafeRawBufferPointer(rebasing: records[..<used])) { entry in
                if !entry.isDot, isOfInterest(entry.name) {
                    names.append(String(decoding: entry.name, as: UTF8.self))
                }
                return true
            }
        }
    }

    /// Sidecars without an entry, and directories that a crash left half made or half removed.
    ///
    /// Beside programs a name may be in the making, so nothing is told then: see `Volume.Options.readOnly` and `repair`.
    func checkLeftovers(_ inode: Inode, _ path: Path) {
        guard isAlone else { return }
        _ = attempt {
            let directory = try volume.handle(inode).descriptor
            let names = try lowerNames(directory)
            let entries = Set(names.filter { $0.hasPrefix(ReservedName.longEntry) })
            for name in names {
                if name.hasPrefix(ReservedName.longName) {
                    let digest = name.dropFirst(ReservedName.longName.count)
                    guard !entries.contains(ReservedName.longEntry + digest) else { continue }
                    leftOver(path, .sidecar) { () throws(Errno) in try Lower.unlink(directory, name) }
                } else if name == ReservedName.lostAndFound {
                    noteOthers(directory, name)
                } else if name.hasPrefix(ReservedName.temporary) {
                    let isDirectory = try Lower.stat(directory, name).st_mode & mode_t(S_IFMT) == mode_t(S_IFDIR)
                    if isDirectory { noteOthers(directory, name) }
                    leftOver(path, .temporary) { () throws(Errno) in
                        // The others are headers and links that were to take the places of others.
                        if isDirectory {
                            try removeTemporary(directory, name)
                        } else {
                            try Lower.unlink(directory, name)
                        }
                    }
                }
            }
        }
    }

    /// A directory that is not empty stays: what is in it was there before, and is for people to look at.
    private func removeTemporary(_ directory: Descriptor, _ name: String) throws(Errno) {
        do throws(Errno) { try Lower.unlink(directory, name + "/" + ReservedName.directoryHeader) } catch {
            guard error == .noEntry else { throw error }
        }
        do throws(Errno) { try Lower.unlink(directory, name, isDirectory: true) } catch {
            guard error == .notEmpty || error == .exists else { throw error }
            throw .notEmpty
        }
    }

    /// Files of `.lethefs` that were to replace others.
    func checkVolumeDirectory() {
        guard isAlone else { return }
        let path = Path(text: "/" + ReservedName.volumeDirectory, name: [], target: nil)
        for folder in [".", VolumeFiles.zones] {
            _ = attempt {
                let directory = try Lower.open(volume.volumeDirectory, folder, flags: O_RDONLY | O_DIRECTORY)
                for name in try lowerNames(directory) where name.hasSuffix(".new") {
                    leftOver(path, .newFile) { () throws(Errno) in try Lower.unlink(directory, name) }
                }
            }
        }
    }

    /// No program works on the volume: a daemon's check is beside others.
    var isAlone: Bool { volume.options.readOnly || options.repair }

    func leftOver(_ path: Path, _ kind: Leftover.Kind, _ remove: () throws(Errno) -> Void) {
        var repaired = false
        if options.repair { repaired = attempt(remove) == nil }
        let leftover = Leftover(path: path.shown, kind: kind, repaired: repaired)
        count { $0.leftovers.append(leftover) }
    }

    /// A file that a crash left in doubt and that reads well is stored as closed.
    func settle(_ file: CheckedFile, isDamaged: Bool) {
        guard isAlone, file.content.isUnsettled else { return }
        // Closing it settles it; one that is damaged is left as it is for another try.
        if isDamaged { file.content.lock.writing { file.content.staysDoubtful = true } }
        let repaired = options.repair && !isDamaged && file.content.lock.reading { file.content.isWritable }
        noteUnsettled(file.path, repaired: repaired)
    }

    func noteUnsettled(_ path: Path, repaired: Bool) {
        let leftover = Leftover(path: path.shown, kind: .unsettled, repaired: repaired)
        count { $0.leftovers.append(leftover) }
    }
}

extension FileContent {
    /// A crash left header, length or holes in doubt, and nothing has stored them anew.
    var isUnsettled: Bool {
        lock.reading {
            switch stage {
            case .doubtful: return true
            case .unwritten, .closed, .stale, .open: return false
            }
        }
    }
}
