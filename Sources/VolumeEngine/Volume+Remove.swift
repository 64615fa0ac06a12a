import CLinux
import Storage
import VolumeFormat

extension Volume {
    /// unlink(2).
    package func unlink(_ parent: Inode, _ name: UnsafeRawBufferPointer) throws(Errno) {
        let handle = try admitted(parent)
        try handle.withLowerName(name) { (lower) throws(Errno) in
            let info = try Lower.stat(handle.descriptor, lower.text)
            guard Inode.Kind(mode: info.st_mode) != .directory else { throw .isDirectory }
            try losingPlace(info, handle, lower) { () throws(Errno) in
                try remove(info, handle, lower.text) { () throws(Errno) in
                    try Lower.unlink(handle.descriptor, lower.text)
                }
            }
            handle.removeSidecar(lower)
        }
    }

    /// Takes a name away by `action`: its inode stays reachable for those who use it, and a split link loses its tail.
    func remove(
        _ info: stat, _ handle: DirectoryHandle, _ name: UnsafePointer<CChar>, _ action: () throws(Errno) -> Void
    ) throws(Errno) {
        // A directory has one name, whatever its links count.
        let isLast = info.st_nlink == 1 || Inode.Kind(mode: info.st_mode) == .directory
        if Inode.Kind(mode: info.st_mode) == .directory { try refuseUnshredded(info, handle, name) }
        var tail: String?
        if isLast, Inode.Kind(mode: info.st_mode) == .symbolicLink, info.st_size == LinkEncoding.maximumTarget {
            tail = Self.tailID(try Lower.readLink(handle.descriptor, name))
        }
        let listed = isLast ? listedFile(info, handle, name) : nil
        let pinned = try pin(info, handle.descriptor, name)
        let isKept = listed.map { keepTreeFile(info, $0) } ?? true
        do throws(Errno) { try action() } catch {
            pinned?.state.withLock { $0.treeFile = nil }
            if let pinned { unpin(pinned, removed: false, last: false) }
            throw error
        }
        if let pinned { unpin(pinned, removed: true, last: isLast) }
        if let listed { manifest?.forget(listed) }
        if isLast { forgetTree(info, listed, isKept: isKept) }
        removeLinkTail(tail)
    }

    /// While a zone is being shredded the roots of others leave it only if they are shredded with it: one that was moved into a tree
    /// after it was looked which zones lie in there keeps the tree from being deleted as a whole.
    private func refuseUnshredded(
        _ info: stat, _ handle: DirectoryHandle, _ name: UnsafePointer<CChar>
    ) throws(Errno) {
        guard shredding.contains(handle.zone) else { return }
        let directory = try Lower.open(handle.descriptor, name, flags: Int32(LINUX_O_PATH) | O_DIRECTORY)
        // One that cannot be read has kept the shredding from beginning.
        let (header, _) = try directoryHeader(directory, UInt64(info.st_ino), isRoot: false, isGone: { false })
        guard header.zone == handle.zone || shredding.contains(header.zone) else { throw .busy }
    }

    /// Opens a file to read its header, whatever its mode: a plain user's own may keep even him out.
    private func openToList(_ handle: DirectoryHandle, _ name: UnsafePointer<CChar>) -> Descriptor? {
        let flags = O_RDONLY | O_NONBLOCK | O_NOCTTY
        do { return try Lower.open(handle.descriptor, name, flags: flags) } catch {
            guard error == .access, !isPrivileged,
                let node = try? Lower.open(handle.descriptor, name, flags: Int32(LINUX_O_PATH))
            else { return nil }
            return try? openAgainstMode(node, flags: flags)
        }
    }

    /// What the manifest, or a file of nodes, calls a file that is about to lose its last name. One that cannot be read stays listed.
    private func listedFile(_ info: stat, _ handle: DirectoryHandle, _ name: UnsafePointer<CChar>) -> UniqueID? {
        let hasNodes = trees != nil && UInt64(info.st_size) >= UInt64((TreeRoot.inlinePages + 1) * Geometry.pageSize)
        guard manifest != nil || hasNodes, Inode.Kind(mode: info.st_mode) == .regular, info.st_size > 0 else {
            return nil
        }
        // What is open may be stored just now.
        if let inode = table.find(InodeKey(info)) {
            defer { table.release(inode) }
            if let content = inode.state.withLock({ $0.content }) {
                return content.lock.reading { content.header.file }
            }
        }
        guard let descriptor = openToList(handle, name) else { return nil }
        let read = try? readHeader(handle.zone, UInt64(info.st_ino), descriptor) { (other) throws(Errno) in
            transitions.all.contains { $0.concerns(other) && $0.concerns(handle.zone) }
        }
        return read?.0.file
    }

    /// rmdir(2). The kernel keeps others from adding entries meanwhile. The directory leaves its place by a rename, so that
    /// after a crash it is either there with its header, or not there.
    package func removeDirectory(_ parent: Inode, _ name: UnsafeRawBufferPointer) throws(Errno) {
        let handle = try admitted(parent)
        try handle.withLowerName(name) { (lower) throws(Errno) in
            let info = try Lower.stat(handle.descriptor, lower.text)
            guard Inode.Kind(mode: info.st_mode) == .directory else { throw .notDirectory }
            let directory = try LowerPlace(volume: self, directory: handle.descriptor).openDirectory(lower.text)
            let holding = try holding(directory)
            guard holding != .entries else { throw .notEmpty }
            let temporary = try Self.temporaryName()
            var isRenamed = true
            try remove(info, handle, lower.text) { () throws(Errno) in
                do throws(Errno) {
                    try Lower.rename(handle.descriptor, lower.text, handle.descriptor, temporary)
                } catch {
                    // A full disk may have no room for another name, and is not to stay full for that.
                    guard error == .noSpace, holding == .header else { throw error }
                    try removeInPlace(directory, lower.text, in: handle.descriptor)
                    isRenamed = false
                }
            }
            handle.removeSidecar(lower)
            if isRenamed { discard(temporary, in: handle.descriptor, directory, holding) }
        }
    }

    /// The header first, and then the directory: a crash between leaves an empty one that has none.
    func removeInPlace(
        _ directory: Descriptor, _ name: UnsafePointer<CChar>, in parent: Descriptor
    ) throws(Errno) {
        let header = try headerText(directory).map(CChar.init(bitPattern:)) + [0]
        try unlinkHeader(directory)
        do throws(Errno) { try Lower.unlink(parent, name, isDirectory: true) } catch {
            try againstMode(directory) { () throws(Errno) in
                try Lower.symlink(target: header, directory, ReservedName.directoryHeader)
            }
            throw error
        }
    }

    private func unlinkHeader(_ directory: Descriptor) throws(Errno) {
        try againstMode(directory) { () throws(Errno) in try Lower.unlink(directory, ReservedName.directoryHeader) }
    }

    /// What a lower directory holds.
    enum Holding {
        /// Entries that programs see.
        case entries
        /// The header alone.
        case header
        /// The header, and leftovers that no program sees.
        case leftovers
    }

    /// Looks into a lower directory that was just opened.
    func holding(_ directory: borrowing Descriptor) throws(Errno) -> Holding {
        var found = Holding.header
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 16)
        defer { buffer.deallocate() }
        while found != .entries {
            let count = try Lower.readDirectory(directory, into: buffer)
            if count == 0 { break }
            LowerEntry.forEach(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { entry in
                if !entry.isReserved {
                    found = .entries
                } else if !entry.isDot, !entry.name.elementsEqual(ReservedName.directoryHeader.utf8) {
                    found = .leftovers
                }
                return found != .entries
            }
        }
        return found
    }

    /// Removes a directory that has left its place, with the header and whatever a crash left in it. What fails here stays as a
    /// temporary that no program sees; the next `rmdir` of its parent tries again.
    func discard(_ name: String, in parent: Descriptor, _ directory: Descriptor, _ holding: Holding) {
        if holding == .leftovers { clean(directory) }
        try? unlinkHeader(directory)
        try? Lower.unlink(parent, name, isDirectory: true)
    }

    /// Removes reserved entries of a directory that is otherwise empty: sidecars and temporaries.
    private func clean(_ directory: Descriptor) {
        var names: [String] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 16)
        defer { buffer.deallocate() }
        try? Lower.seekDirectory(directory, to: 0)
        while let count = try? Lower.readDirectory(directory, into: buffer), count > 0 {
            LowerEntry.forEach(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { entry in
                let name = String(decoding: entry.name, as: UTF8.self)
                if name != ".", name != ".." { names.append(name) }
                return true
            }
        }
        for name in names where name.hasPrefix(ReservedName.temporary) {
            if let left = try? LowerPlace(volume: self, directory: directory).openDirectory(name),
                let holding = try? holding(left), holding != .entries
            {
                discard(name, in: directory, left, holding)
            } else {
                // A header or a link that a sweep was about to put in its place.
                try? Lower.unlink(directory, name)
            }
        }
        for name in names where name.hasPrefix(ReservedName.longName) { try? Lower.unlink(directory, name) }
    }
}
