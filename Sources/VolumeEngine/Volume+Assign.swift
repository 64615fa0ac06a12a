import CLinux
import KeyManagement
import Storage
import VolumeFormat

/// Objects of a tree on its way to another zone: each is converted by itself, in one step on the lower storage (FORMAT §10).
extension FileContent {
    /// Wraps an open file's DEKs by another zone's KEK, and has its header say that zone. The caller holds the gate, and has called
    /// `willMove` before it took `destination`.
    ///
    /// What the stored header says of size and state stays as it is. False when there is nothing to do.
    func assign(from source: ZoneKeys, to destination: ZoneKeys, _ writable: Descriptor) throws(Errno) -> Bool {
        try ensureKeys()
        return try lock.writing { () throws(Errno) in
            try requireKeys()
            guard header.zone == source.zone else {
                inode.setZone(header.zone)
                return false
            }
            var moved = try volume.assigned(header, from: source, to: destination, inode.number)
            // One that was never stored is stored with its first byte.
            if stage != .unwritten {
                moved.generation += 1
                // If it fails, the one or the other is there, and the next store decides.
                try Self.store(moved, current, to: writable)
                if stage == .stale, header.state == .open { stage = .open }
            }
            header = moved
            if stage != .unwritten { noteStored() }
            inode.setZone(destination.zone)
            return true
        }
    }
}

extension Volume {
    func assigned(
        _ header: FileHeader, from source: ZoneKeys, to destination: ZoneKeys, _ number: UInt64
    ) throws(Errno) -> FileHeader {
        var moved = header
        moved.zone = destination.zone
        for index in moved.slots.indices {
            do throws(FormatError) {
                moved.slots[index] = try destination.adopt(moved.slots[index], from: source, now: Self.now)
            } catch {
                throw damaged(.fileHeader, number, "DEK slot: \(error.code.rawValue)")
            }
        }
        return moved
    }

    /// A regular file: one sector is written, in place. Its times stay. Its directory has been converted before.
    func assignFile(_ entry: SweepEntry, _ transition: Transition) throws(Errno) -> (swept: Swept, size: UInt64) {
        let descriptor = try openForSweep(entry)
        let info = try Lower.stat(descriptor)
        guard info.st_mode & mode_t(S_IFMT) == mode_t(S_IFREG) else { throw .noEntry }
        let size = Self.plainSize(info)
        // Nobody opens, creates or closes it meanwhile, nor sets its times; and new keys of the zones wait.
        return try gate(number: UInt64(info.st_ino)).lock.withLock { (_) throws(Errno) in
            let before = try Lower.stat(descriptor)
            guard let inode = table.find(InodeKey(before)) else {
                return (try assignClosed(descriptor, before, transition), size)
            }
            defer { table.release(inode) }
            inode.willMove(to: transition.destination)
            do throws(Errno) {
                guard let content = inode.state.withLock({ $0.content }) else {
                    let swept = try assignClosed(descriptor, before, transition)
                    inode.setZone(transition.destination)
                    return (swept, size)
                }
                let changed = try content.assign(
                    from: try storingKeys(transition.source), to: try storingKeys(transition.destination), descriptor)
                if changed { try keepTimes(descriptor, before) }
                return (changed ? .changed : .same, size)
            } catch {
                inode.willMove(to: inode.zone)
                throw error
            }
        }
    }

    private func assignClosed(
        _ descriptor: Descriptor, _ info: stat, _ transition: Transition
    ) throws(Errno) -> Swept {
        guard info.st_size > 0 else { return .unwritten }
        let number = UInt64(info.st_ino)
        let read = try readHeader(transition.destination, number, descriptor) { (other) throws(Errno) in
            other == transition.source
        }
        guard let (header, keys) = read else { return .unwritten }
        guard header.zone == transition.source else { return .same }
        var moved = try assigned(
            header, from: try storingKeys(transition.source), to: try storingKeys(transition.destination), number)
        moved.generation += 1
        try FileContent.store(moved, keys[moved.currentIndex], to: descriptor)
        manifest?.note(moved)
        try keepTimes(descriptor, info)
        return .changed
    }

    /// A directory: a new header takes the old one's place by a rename. From then on what is made in it is the destination's.
    ///
    /// Its parent has been converted before, or it is the tree's own; one that moved meanwhile gives ESTALE.
    func assignDirectory(_ directory: SweepDirectory, _ transition: Transition) throws(Errno) -> Swept {
        let inode = try directory.inode()
        return try placing.writing { () throws(Errno) in
            let isTop = directory.header.directory == transition.scope
            if !isTop {
                guard let parent = inode.state.withLock({ $0.location?.parent }),
                    try handle(parent).zone == transition.destination, try isInside(parent, transition)
                else { throw .stale }
            }
            return try keyUse.reading { () throws(Errno) in
                let (header, keys) = try directoryHeader(
                    directory.descriptor, directory.key.number, isRoot: false, isGone: { isRemoved(inode) })
                guard header.zone == transition.source else {
                    // Whoever made a handle of another zone's header has it no longer.
                    inode.state.withLock {
                        if let handle = $0.handle, handle.zone != header.zone { $0.headerChanged() }
                    }
                    return .same
                }
                inode.willMove(to: transition.destination)
                do throws(Errno) {
                    let (source, destination) =
                        (try storingKeys(transition.source), try storingKeys(transition.destination))
                    var moved = header
                    moved.zone = transition.destination
                    moved.generation += 1
                    for index in moved.slots.indices {
                        do throws(FormatError) {
                            moved.slots[index] = try destination.adopt(moved.slots[index], from: source, now: Self.now)
                        } catch {
                            throw damaged(.directoryHeader, directory.key.number, "DEK slot: \(error.code.rawValue)")
                        }
                    }
                    try replaceHeader(of: directory, by: moved, keys)
                } catch {
                    // Whatever came of it: the header is read again.
                    inode.state.withLock { $0.headerChanged() }
                    inode.willMove(to: inode.zone)
                    throw error
                }
                inode.state.withLock { $0.headerChanged() }
                // The name of the tree's own directory belongs to the zone around it.
                inode.setZone(isTop ? inode.zone : transition.destination)
                return .changed
            }
        }
    }

    /// A symbolic link is sealed anew by the destination's metadata key and takes the old one's place; the attributes of special files
    /// are sealed anew.
    func assignOther(_ entry: SweepEntry, isLink: Bool, _ transition: Transition) throws(Errno) -> Swept {
        let inode = try entry.inode(self)
        defer { table.release(inode) }
        guard inode.kind == .symbolicLink || inode.kind == .special else { throw .noEntry }
        return try keyUse.reading { () throws(Errno) in
            guard inode.kind == .symbolicLink else {
                inode.willMove(to: transition.destination)
                let changed = try resealAttributes(inode) > 0
                inode.setZone(transition.destination)
                return changed ? .changed : .same
            }
            _ = try readLink(inode)
            guard inode.zone == transition.source else { return .same }
            // With several names it stays as it is; those were refused.
            guard try resealLink(entry, inode, zone: transition.destination) else { throw .busy }
            // Whoever still has the old link's inode finds that it is not there any more.
            inode.setZone(transition.destination)
            return .changed
        }
    }
}
