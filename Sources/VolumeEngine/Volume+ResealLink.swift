import CLinux
import KeyManagement
import Storage
import VolumeFormat

extension Volume {
    /// Seals a link's target (and attributes) by the newest metadata key: a new lower link takes the old one's place. Its inode
    /// number changes. False when nothing was to be done.
    ///
    /// One with several names is only noted in `linked`, for `resealLinked`: one name after another would tear them apart.
    func resealLink(_ entry: SweepEntry, _ linked: LinkedNames) throws(Errno) -> Bool {
        let inode = try entry.inode(self)
        defer { table.release(inode) }
        guard inode.kind == .symbolicLink else { return false }
        guard let newest = try storingKeys(inode.zone).currentMetadata?.version else { throw .io }
        guard try metadataVersions(inode, isLink: true).contains(where: { $0 != newest }) else { return false }
        return try resealLink(entry, inode, zone: inode.zone, linked)
    }

    /// The same by the newest metadata key of `zone`, whatever sealed it before. Without `linked` one with several names stays as it is.
    func resealLink(
        _ entry: SweepEntry, _ inode: Inode, zone: ZoneID, _ linked: LinkedNames? = nil
    ) throws(Errno) -> Bool {
        // Where it is now; a link that moves just now comes again.
        guard case .named(let directory, let name) = entry else { return try resealMoved(inode, zone, linked) }
        let parent = try directory.inode()
        return try withAttributesFixed(inode) { () throws(Errno) in
            try reseal(inode, parent, directory.descriptor, name, zone, linked)
        }
    }

    private func resealMoved(_ inode: Inode, _ zone: ZoneID, _ linked: LinkedNames?) throws(Errno) -> Bool {
        guard let location = inode.state.withLock({ $0.location }) else { throw .stale }
        let directory = try handle(location.parent).descriptor
        return try withAttributesFixed(inode) { () throws(Errno) in
            try reseal(inode, location.parent, directory, location.name, zone, linked)
        }
    }

    /// The caller holds what keeps the link's attributes as they are.
    private func reseal(
        _ inode: Inode, _ parent: Inode, _ directory: Descriptor, _ name: [CChar], _ zone: ZoneID,
        _ linked: LinkedNames?
    ) throws(Errno) -> Bool {
        let place = LowerPlace(volume: self, directory: directory)
        let info = try place.stat(name)
        guard InodeKey(info) == inode.key else { throw .stale }
        let text = try place.readLink(name)
        // The last name of several, where a crash came between, follows the others.
        let isOneOfSeveral = info.st_nlink > 1 ? true : linked == nil ? false : try hasSuccessor(text, inode.zone)
        if isOneOfSeveral {
            linked?.add(inode, count: Int(info.st_nlink), parent, name, table)
            return false
        }
        let oldTail = Self.tailID(text)
        let target = try readLink(inode)
        let stored = try target.withUnsafeBufferPointer { (target) throws(Errno) in
            try sealLink(UnsafeRawBufferPointer(target), zone: zone)
        }
        let temporary = try Self.temporaryName()
        var hasExchanged = false
        do throws(Errno) {
            try place.symlink(target: stored.text, temporary)
            if isPrivileged { try Lower.changeOwner(directory, temporary, uid: info.st_uid, gid: info.st_gid) }
            let made = try place.open(temporary, flags: Int32(LINUX_O_PATH))
            try copySealedAttributes(of: inode, to: made, zone)
            try Lower.changeTimes(made, access: info.st_atim, modification: info.st_mtim)
            // Fails if the name is gone; and what came out must be what was meant.
            try place.exchange(temporary, name)
            hasExchanged = true
            guard InodeKey(try place.stat(temporary)) == inode.key else { throw .stale }
        } catch {
            // Where even the way back fails, neither goes: the new link stands, and beside it what stood there.
            if hasExchanged { try place.exchange(temporary, name) }
            try? place.unlink(temporary)
            removeLinkTail(stored.tail)
            throw error
        }
        // Its number may be another object's the moment that it is gone. Who still uses it gets ESTALE, and looks the name up anew.
        table.detach(inode)
        try? place.unlink(temporary)
        removeLinkTail(oldTail)
        return true
    }

    /// While `body` copies a link's owner, times and attributes and puts the copy in its place, nobody changes them: a change that came between would
    /// be lost. Whoever waited finds the link gone, and looks its name up anew.
    func withAttributesFixed<R>(_ inode: Inode, _ body: () throws(Errno) -> R) throws(Errno) -> R {
        try attributeGate(inode).lock.withLock { (_) throws(Errno) in
            try gate(inode).lock.withLock { (_) throws(Errno) in try body() }
        }
    }
}
