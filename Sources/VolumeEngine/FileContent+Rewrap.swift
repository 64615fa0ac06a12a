import CLinux
import KeyManagement
import Storage
import VolumeFormat

extension FileContent {
    /// Wraps the DEKs of an open file by the active KEK. `writable` can write to the lower file; `nil` for one that has lost its
    /// last name, of which nothing will be read again. The caller holds the gate.
    ///
    /// What the stored header says of size and state stays as it is. False when there is nothing to do.
    func rewrap(under zoneKeys: ZoneKeys, _ writable: Descriptor?) throws(Errno) -> Bool {
        try ensureKeys()
        return try lock.writing { () throws(Errno) in
            try requireKeys()
            // One on its way from another zone, or to it, is not this zone's.
            guard header.zone == zoneKeys.zone,
                header.slots.contains(where: { $0.kekVersion != zoneKeys.activeKEK.version })
            else { return false }
            let previous = header
            for index in header.slots.indices {
                do throws(FormatError) { header.slots[index] = try zoneKeys.rewrap(header.slots[index]) } catch {
                    header = previous
                    throw volume.damaged(.fileHeader, inode.number, "DEK slot: \(error.code.rawValue)")
                }
            }
            // One that was never stored is stored with its first byte.
            guard stage != .unwritten, let writable else { return true }
            header.generation += 1
            do throws(Errno) {
                try Self.store(header, current, to: writable)
                noteStored()
            } catch {
                // On the lower storage is the one or the other, and both are whole: the next store decides.
                header = previous
                throw error
            }
            if stage == .stale, header.state == .open { stage = .open }
            return true
        }
    }

    /// Writes a whole header sector.
    static func store(_ header: FileHeader, _ current: FileKeys, to descriptor: Descriptor) throws(Errno) {
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: Geometry.headerSize, alignment: 16)
        defer { bytes.deallocate() }
        try encode(header, current, into: bytes)
        try Lower.write(descriptor, from: bytes, count: Geometry.headerSize, at: 0)
    }
}

extension Volume {
    /// The same for files that have no name any more and are still open. Returns how many were changed.
    func rewrapUnlinked(_ zone: ZoneID) throws(Errno) -> UInt64 {
        let zoneKeys = try storingKeys(zone)
        var changed: UInt64 = 0
        var failure: Errno?
        for inode in table.retainAll() {
            defer { table.release(inode) }
            guard inode.zone == zone, inode.kind == .regular else { continue }
            gate(inode).lock.withLock { _ in
                guard let content = inode.state.withLock({ $0.content }) else { return }
                do throws(Errno) {
                    // Those with a name were done with it.
                    let isGone = try content.lowerAttributes().st_nlink == 0
                    guard isGone || content.lock.reading({ content.stage == .unwritten }) else { return }
                    if try content.rewrap(under: zoneKeys, nil) { changed += 1 }
                } catch { failure = error }
            }
        }
        if let failure { throw failure }
        return changed
    }

    /// What came of one object.
    enum Swept { case changed, same, unwritten }

    /// Wraps the DEKs of a file of a zone by its active KEK: one sector is written, in place. Its times stay.
    func rewrapFile(_ entry: SweepEntry, _ zone: ZoneID) throws(Errno) -> (swept: Swept, size: UInt64) {
        let descriptor = try openForSweep(entry)
        let info = try Lower.stat(descriptor)
        guard info.st_mode & mode_t(S_IFMT) == mode_t(S_IFREG) else { throw .noEntry }
        let size = Self.plainSize(info)
        let zoneKeys = try storingKeys(zone)
        // Nobody opens, creates or closes it meanwhile, nor sets its times.
        return try gate(number: UInt64(info.st_ino)).lock.withLock { (_) throws(Errno) in
            let before = try Lower.stat(descriptor)
            let changed: Bool
            if let inode = table.find(InodeKey(before)) {
                defer { table.release(inode) }
                guard let content = inode.state.withLock({ $0.content }) else {
                    return (try rewrapClosed(entry, descriptor, before, zoneKeys), size)
                }
                changed = try content.rewrap(under: zoneKeys, descriptor)
                if changed { try keepTimes(descriptor, before) }
                return (changed ? .changed : .same, size)
            }
            return (try rewrapClosed(entry, descriptor, before, zoneKeys), size)
        }
    }

    private func rewrapClosed(
        _ entry: SweepEntry, _ descriptor: Descriptor, _ info: stat, _ zoneKeys: ZoneKeys
    ) throws(Errno) -> Swept {
        guard info.st_size > 0 else { return .unwritten }
        let stored = try readHeader(entry.zone, UInt64(info.st_ino), descriptor) { (other) throws(Errno) in
            try admits(entry, other)
        }
        guard let (read, keys) = stored else { return .unwritten }
        guard read.zone == zoneKeys.zone, read.slots.contains(where: { $0.kekVersion != zoneKeys.activeKEK.version })
        else { return .same }
        var header = read
        for index in header.slots.indices {
            do throws(FormatError) { header.slots[index] = try zoneKeys.rewrap(header.slots[index]) } catch {
                throw damaged(.fileHeader, UInt64(info.st_ino), "DEK slot: \(error.code.rawValue)")
            }
        }
        header.generation += 1
        try FileContent.store(header, keys[header.currentIndex], to: descriptor)
        manifest?.note(header)
        try keepTimes(descriptor, info)
        return .changed
    }

    /// The program's times, not those of this bookkeeping.
    func keepTimes(_ descriptor: Descriptor, _ info: stat) throws(Errno) {
        do { try Lower.changeTimes(descriptor, access: info.st_atim, modification: info.st_mtim) } catch {
            guard error == .perm else { throw error }
        }
    }

    /// The size that the lower length tells, for figures alone.
    static func plainSize(_ info: stat) -> UInt64 {
        switch Geometry.interpret(lowerLength: UInt64(info.st_size)) {
        case .size(let size): size
        case .lastPageDecides(let pages): Geometry.plainStart(of: PageIndex(rawValue: pages))
        case .unwritten, .invalid: 0
        }
    }

    /// Opens a lower file for reading and writing, whatever its mode.
    func openForSweep(_ entry: SweepEntry) throws(Errno) -> Descriptor {
        let flags = O_RDWR | O_NONBLOCK | O_NOCTTY
        do { return try entry.open(self, flags: flags) } catch {
            guard error == .access, !isPrivileged else { throw error }
            let node = try entry.open(self, flags: Int32(LINUX_O_PATH))
            guard Inode.Kind(mode: try Lower.stat(node).st_mode) == .regular,
                let opened = try openAgainstMode(node, flags: flags)
            else { throw error }
            return opened
        }
    }

    /// Wraps the DEKs of a directory by its zone's active KEK: a new header takes the old one's place by a rename. Its times stay.
    func rewrapDirectory(_ directory: SweepDirectory) throws(Errno) -> Swept {
        let zoneKeys = try storingKeys(directory.zone)
        guard directory.header.slots.contains(where: { $0.kekVersion != zoneKeys.activeKEK.version }) else {
            return .same
        }
        var header = directory.header
        for index in header.slots.indices {
            do throws(FormatError) { header.slots[index] = try zoneKeys.rewrap(header.slots[index]) } catch {
                throw damaged(.directoryHeader, directory.key.number, "DEK slot: \(error.code.rawValue)")
            }
        }
        header.generation += 1
        try replaceHeader(of: directory, by: header, try directory.keys())
        return .changed
    }

    /// The old header or the new one is there, at every moment and after every crash.
    func replaceHeader(
        of directory: SweepDirectory, by header: DirectoryHeader, _ keys: DirectoryKeys
    ) throws(Errno) {
        let text = try Self.encodedHeader(header, keys: keys)
        let temporary = try Self.temporaryName()
        let descriptor = directory.descriptor
        let info = try Lower.stat(descriptor)
        try againstMode(descriptor) { () throws(Errno) in
            try Lower.symlink(target: text, descriptor, temporary)
            do throws(Errno) {
                if isPrivileged, info.st_uid != 0 || info.st_gid != 0 {
                    try Lower.changeOwner(descriptor, temporary, uid: info.st_uid, gid: info.st_gid)
                }
                try Lower.rename(descriptor, temporary, descriptor, ReservedName.directoryHeader)
            } catch {
                try? Lower.unlink(descriptor, temporary)
                throw error
            }
        }
        if let inode = table.find(directory.key) {
            // Whoever reads the old header just now reads again. A handle that is cached stays: its DEKs are the same.
            inode.state.withLock { $0.headerChanges &+= 1 }
            table.release(inode)
        }
        try keepTimes(descriptor, info)
    }
}

/// Wraps every DEK of a zone by its active KEK.
final class RewrapSweep: SweepVisitor {
    let isForEverything = true
    private let volume: Volume
    private let zone: ZoneID
    private let control: SweepControl

    init(_ volume: Volume, _ zone: ZoneID, _ control: SweepControl) {
        self.volume = volume
        self.zone = zone
        self.control = control
    }

    func wants(_ zone: ZoneID) -> Bool { volume.mayHold(zone, self.zone) }

    func visit(_ directory: SweepDirectory) throws(Errno) {
        guard directory.zone == zone else { return }
        let swept = try volume.rewrapDirectory(directory)
        control.count {
            $0.directories += 1
            if swept == .changed { $0.changed += 1 }
        }
    }

    func visitFile(_ entry: SweepEntry, thread: Int) throws(Errno) {
        var unused = 0
        guard control.pace(bytes: UInt64(Geometry.headerSize), lastUses: &unused) else { return }
        let (swept, size) = try volume.rewrapFile(entry, zone)
        control.count {
            $0.files += 1
            $0.bytes.addUpToMaximum(size)
            if swept == .changed {
                $0.changed += 1
                $0.sealed += UInt64(Geometry.headerSize)
            }
        }
    }

    /// Links are sealed by a metadata key, which is in the keyring.
    func visitOther(_ entry: SweepEntry, isLink: Bool, thread: Int) throws(Errno) { control.count { $0.links += 1 } }

    func finish(thread: Int) {}
}
