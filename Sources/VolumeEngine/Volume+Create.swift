import CLinux
import Ciphers
import KeyManagement
import Storage
import VolumeFormat

extension Volume {
    /// Creates a regular file and opens it. `mode` is as the program gave it; the calling thread's umask is the program's, so
    /// that the lower file system applies it, or a default ACL, as it does for its own.
    package func create(
        _ parent: Inode, _ name: UnsafeRawBufferPointer, mode: mode_t, flags: Int32, _ who: Credentials
    ) throws(Errno) -> (entry: Entry, content: FileContent) {
        try placing.reading { () throws(Errno) in
            try createPlaced(parent, name, mode: mode, flags: flags, who)
        }
    }

    private func createPlaced(
        _ parent: Inode, _ name: UnsafeRawBufferPointer, mode: mode_t, flags: Int32, _ who: Credentials
    ) throws(Errno) -> (entry: Entry, content: FileContent) {
        let handle = try admitted(parent)
        return try handle.withLowerName(name) { (lower) throws(Errno) in
            // Before anything is made.
            try DescriptorBudget.check()
            try handle.makeSidecar(lower)
            let descriptor: Descriptor
            do throws(Errno) {
                descriptor = try Lower.open(
                    handle.descriptor, lower.text, flags: O_RDWR | O_CREAT | O_EXCL, mode: mode & 0o777)
            } catch {
                guard error == .exists, flags & O_EXCL == 0 else {
                    if error != .exists { handle.removeSidecar(lower) }
                    throw error
                }
                return try openExisting(parent, handle, lower, flags: flags)
            }
            do throws(Errno) {
                try giveTo(who, parent, descriptor, mode: mode)
                return try adoptCreated(parent, handle, lower, descriptor)
            } catch {
                try? Lower.unlink(handle.descriptor, lower.text)
                handle.removeSidecar(lower)
                throw error
            }
        }
    }

    private func adoptCreated(
        _ parent: Inode, _ handle: DirectoryHandle, _ lower: LowerName, _ descriptor: Descriptor
    ) throws(Errno) -> (entry: Entry, content: FileContent) {
        let info = try Lower.stat(descriptor)
        let inode = acquireMade(info, parent, handle, lower.text)
        do throws(Errno) {
            let content = try gate(inode).lock.withLock { (_) throws(Errno) in
                // A sweep has it open already.
                if let content = inode.state.withLock({ $0.content }) {
                    try content.join(forWriting: true) { () throws(Errno) in (descriptor, true) }
                    content.noteWriter()
                    return content
                }
                let content = try FileContent(creating: inode, in: self, descriptor: descriptor)
                if hasPlaces {
                    try storeFirstPlace(LowerNode(descriptor), content.header.file, handle, lower.text)
                    inode.state.withLock { $0.isPlaceVerified = true }
                }
                content.noteWriter()
                inode.state.withLock { state in
                    state.content = content
                    // It is new; what it inherits is an ACL at the most.
                    state.absentAttributes = .sealed
                }
                table.retain(inode)  // for the open content
                return content
            }
            return (Entry(inode: inode, attributes: try presented(inode, info)), content)
        } catch {
            // The caller removes the lower file: its number may come again.
            table.detach(inode)
            table.release(inode)
            throw error
        }
    }

    /// Whoever walks the lower tree may meet a file that is being created: neither its header is there yet, nor its content in memory. Returns
    /// when one of them is, if it is so. Called with no lock.
    func waitForCreator(of inode: Inode) throws(Errno) {
        guard inode.state.withLock({ $0.content == nil }), try lowerAttributes(inode).st_size == 0 else { return }
        placing.writing {}
    }

    private func openExisting(
        _ parent: Inode, _ handle: DirectoryHandle, _ lower: LowerName, flags: Int32
    ) throws(Errno) -> (entry: Entry, content: FileContent) {
        let entry = try adopt(try Lower.stat(handle.descriptor, lower.text), parent, handle, lower.text)
        do throws(Errno) {
            guard entry.inode.kind == .regular else { throw entry.inode.kind == .directory ? .isDirectory : .exists }
            let content = try openContent(entry.inode, forWriting: flags & O_ACCMODE != O_RDONLY)
            do throws(Errno) {
                if flags & O_TRUNC != 0 { try content.truncate(to: 0) }
                return (Entry(inode: entry.inode, attributes: try attributes(entry.inode)), content)
            } catch {
                closeContent(content)
                throw error
            }
        } catch {
            table.release(entry.inode)
            throw error
        }
    }

    /// mknod(2): a regular file, a FIFO, a socket or a device.
    package func makeNode(
        _ parent: Inode, _ name: UnsafeRawBufferPointer, mode: mode_t, device: dev_t, _ who: Credentials
    ) throws(Errno) -> Entry {
        if Inode.Kind(mode: mode) == .regular {
            let (entry, content) = try create(parent, name, mode: mode, flags: O_EXCL, who)
            closeContent(content)
            return entry
        }
        return try placing.reading { () throws(Errno) in
            try makeSpecial(parent, name, mode: mode, device: device, who)
        }
    }

    private func makeSpecial(
        _ parent: Inode, _ name: UnsafeRawBufferPointer, mode: mode_t, device: dev_t, _ who: Credentials
    ) throws(Errno) -> Entry {
        let handle = try admitted(parent)
        return try handle.withLowerName(name) { (lower) throws(Errno) in
            try handle.makeSidecar(lower)
            do throws(Errno) {
                try Lower.makeNode(handle.descriptor, lower.text, mode: mode, device: device)
            } catch {
                if error != .exists { handle.removeSidecar(lower) }
                throw error
            }
            return try finishEntry(parent, handle, lower, mode: mode, who)
        }
    }

    /// symlink(2).
    package func makeSymbolicLink(
        _ parent: Inode, _ name: UnsafeRawBufferPointer, target: UnsafeRawBufferPointer, _ who: Credentials
    ) throws(Errno) -> Entry {
        try placing.reading { () throws(Errno) in
            let handle = try admitted(parent)
            return try keyUse.reading { () throws(Errno) in try makeSymbolicLink(handle, parent, name, target, who) }
        }
    }

    private func makeSymbolicLink(
        _ handle: DirectoryHandle, _ parent: Inode, _ name: UnsafeRawBufferPointer, _ target: UnsafeRawBufferPointer,
        _ who: Credentials
    ) throws(Errno) -> Entry {
        try handle.withLowerName(name) { (lower) throws(Errno) in
            let stored = try sealLink(target, zone: handle.zone)
            try handle.makeSidecar(lower)
            do throws(Errno) {
                try Lower.symlink(target: stored.text, handle.descriptor, lower.text)
            } catch {
                removeLinkTail(stored.tail)
                if error != .exists { handle.removeSidecar(lower) }
                throw error
            }
            return try finishEntry(parent, handle, lower, mode: nil, who)
        }
    }

    /// mkdir(2). The directory is made under a temporary name beside its place, so that it inherits group and ACL, gets its
    /// header, and is then renamed: it is never seen, nor left by a crash, without one. With `zone` it becomes that zone's root.
    package func makeDirectory(
        _ parent: Inode, _ name: UnsafeRawBufferPointer, mode: mode_t, _ who: Credentials, zone: ZoneID? = nil
    ) throws(Errno) -> Entry {
        try placing.reading { () throws(Errno) in
            let handle = try admitted(parent)
            let zone = zone ?? handle.zone
            guard zone == handle.zone || !shredding.contains(handle.zone) else { throw .busy }
            return try keyUse.reading { () throws(Errno) in
                try makeDirectory(handle, parent, name, mode, who, zone)
            }
        }
    }

    private func makeDirectory(
        _ handle: DirectoryHandle, _ parent: Inode, _ name: UnsafeRawBufferPointer, _ mode: mode_t, _ who: Credentials,
        _ zone: ZoneID
    ) throws(Errno) -> Entry {
        try handle.withLowerName(name) { (lower) throws(Errno) in
            let (header, keys) = try Self.makeDirectoryHeader(
                volume: description.volume, keys: try self.keys(zone), now: Self.now)
            let text = try Self.encodedHeader(header, keys: keys)
            let temporary = try Self.temporaryName()
            // The owner must be able to put the header in; what was not asked for is taken away afterwards.
            try Lower.makeDirectory(handle.descriptor, temporary, mode: mode | 0o700)
            do throws(Errno) {
                try putHeader(text, into: temporary, handle.descriptor)
                if hasPlaces {
                    try storeFirstPlace(
                        LowerNode(handle.descriptor, temporary), header.directory, handle, lower.text)
                }
                try giveTo(who, parent, handle.descriptor, temporary, isDirectory: true)
                if mode & 0o700 != 0o700 {
                    let made = try Lower.stat(handle.descriptor, temporary).st_mode & 0o7777
                    try Lower.changeMode(handle.descriptor, temporary, to: made & ~(0o700 & ~mode))
                }
                try handle.makeSidecar(lower)
                try Lower.rename(
                    handle.descriptor, temporary, handle.descriptor, lower.text, flags: UInt32(LINUX_RENAME_NOREPLACE))
            } catch {
                try? Lower.unlink(handle.descriptor, temporary + "/" + ReservedName.directoryHeader)
                try? Lower.unlink(handle.descriptor, temporary, isDirectory: true)
                if error != .exists { handle.removeSidecar(lower) }
                throw error
            }
            return try adoptNew(try Lower.stat(handle.descriptor, lower.text), parent, handle, lower.text)
        }
    }

    /// The program's umask, or a default ACL, may have kept even the owner out.
    private func putHeader(_ text: [CChar], into temporary: String, _ directory: Descriptor) throws(Errno) {
        let header = temporary + "/" + ReservedName.directoryHeader
        let flags = Int32(LINUX_O_PATH) | O_DIRECTORY | O_NOFOLLOW
        try againstMode(try Lower.open(directory, temporary, flags: flags)) { () throws(Errno) in
            try Lower.symlink(target: text, directory, header)
        }
    }

    /// The entry of an object that was made just now.
    private func adoptNew(
        _ info: stat, _ parent: Inode, _ handle: DirectoryHandle, _ name: UnsafePointer<CChar>
    ) throws(Errno) -> Entry {
        let inode = acquireMade(info, parent, handle, name)
        do throws(Errno) { return Entry(inode: inode, attributes: try presented(inode, info)) } catch {
            table.release(inode)
            throw error
        }
    }

    static func temporaryName() throws(Errno) -> String {
        let id = try randomID()
        return ReservedName.temporary + String(id.high, radix: 36) + String(id.low, radix: 36)
    }

    private func finishEntry(
        _ parent: Inode, _ handle: DirectoryHandle, _ lower: LowerName, mode: mode_t?, _ who: Credentials
    ) throws(Errno) -> Entry {
        do throws(Errno) {
            try giveTo(who, parent, handle.descriptor, String(cString: lower.text), isDirectory: false)
            if let mode, mode & 0o7000 != 0 {
                let made = try Lower.stat(handle.descriptor, lower.text).st_mode & 0o777
                try Lower.changeMode(handle.descriptor, lower.text, to: made | mode & 0o7000)
            }
            return try adoptNew(try Lower.stat(handle.descriptor, lower.text), parent, handle, lower.text)
        } catch {
            try? Lower.unlink(handle.descriptor, lower.text)
            handle.removeSidecar(lower)
            throw error
        }
    }

    /// Makes the caller the owner; a set-group-ID parent has given its group already.
    private func giveTo(
        _ who: Credentials, _ parent: Inode, _ directory: Descriptor, _ name: String, isDirectory: Bool
    ) throws(Errno) {
        guard let (uid, gid) = owner(who, parent) else { return }
        try Lower.changeOwner(directory, name, uid: uid, gid: gid)
    }

    private func giveTo(_ who: Credentials, _ parent: Inode, _ file: Descriptor, mode: mode_t) throws(Errno) {
        if let (uid, gid) = owner(who, parent) { try Lower.changeOwner(file, uid: uid, gid: gid) }
        guard mode & 0o7000 != 0 else { return }
        // chown(2) takes set-ID bits away, so they come last.
        let made = try Lower.stat(file).st_mode & 0o777
        try Lower.changeMode(file, to: made | mode & 0o7000)
    }

    private func owner(_ who: Credentials, _ parent: Inode) -> (uid_t, gid_t)? {
        guard isPrivileged else { return nil }
        let inheritsGroup = parent.state.withLock { $0.isSetgid }
        if who.uid == 0 && (inheritsGroup || who.gid == ownGroup) { return nil }
        return (who.uid, inheritsGroup ? gid_t.max : who.gid)
    }
}
