import CLinux
import Storage
import VolumeFormat

/// An inode and its attributes: what lookups and creations give.
package struct Entry {
    package let inode: Inode
    package let attributes: stat
}

extension Volume {
    /// Finds `name` in a directory. The entry's inode carries one more reference, which `forget` gives back.
    package func lookUp(_ parent: Inode, _ name: UnsafeRawBufferPointer) throws(Errno) -> Entry {
        let handle = try admitted(parent)
        let entry = try handle.withLowerName(name) { (lower) throws(Errno) in
            try adopt(try Lower.stat(handle.descriptor, lower.text), parent, handle, lower.text)
        }
        // The gate again: a revocation may have come while the lower storage took its time.
        do throws(Errno) { _ = try keys(handle.zone) } catch {
            table.release(entry.inode)
            throw error
        }
        return entry
    }

    /// Gives back `count` references that the kernel held.
    package func forget(_ inode: Inode, count: Int) { table.release(inode, count: count) }

    /// The inode of a lower entry that was just seen at `name`, with one more reference.
    func adopt(
        _ info: stat, _ parent: Inode, _ handle: DirectoryHandle, _ name: UnsafePointer<CChar>
    ) throws(Errno) -> Entry {
        let key = InodeKey(info)
        let kind = Inode.Kind(mode: info.st_mode)
        let (inode, isNew) = table.acquire(key, where: { $0.kind == kind }) {
            makeInode($0, info, parent, handle, name)
        }
        do throws(Errno) {
            if !isNew {
                // Only another program on the lower storage can have put a directory into itself.
                if inode.kind == .directory, !isAt(inode, parent, name), isAncestor(inode, of: parent) {
                    throw damaged(.name, inode.number, "a directory within itself")
                }
                relocate(inode, to: parent, name)
            }
            return Entry(inode: inode, attributes: try presented(inode, info))
        } catch {
            table.release(inode)
            throw error
        }
    }

    /// The inode of an object that was just made as `name`, with one more reference. A sweep may have seen it already.
    func acquireMade(
        _ info: stat, _ parent: Inode, _ handle: DirectoryHandle, _ name: UnsafePointer<CChar>
    ) -> Inode {
        let kind = Inode.Kind(mode: info.st_mode)
        let (inode, isNew) = table.acquire(
            InodeKey(info), where: { $0.kind == kind && isAt($0, parent, name) },
            make: { makeInode($0, info, parent, handle, name) })
        // A lookup that began before the directory changed its zone may have been first.
        if !isNew { inode.setZone(handle.zone) }
        return inode
    }

    /// For the table: keeps `parent`.
    private func makeInode(
        _ identity: InodeIdentity, _ info: stat, _ parent: Inode, _ handle: DirectoryHandle,
        _ name: UnsafePointer<CChar>
    ) -> Inode {
        table.retain(parent)
        return Inode(
            key: InodeKey(info), kind: Inode.Kind(mode: info.st_mode), zone: handle.zone, identity: identity,
            location: Inode.Location(parent: parent, name: Self.stored(name)))
    }

    private func isAt(_ inode: Inode, _ parent: Inode, _ name: UnsafePointer<CChar>) -> Bool {
        inode.state.withLock { state in
            guard let location = state.location else { return false }
            return location.parent === parent && strcmp(location.name, name) == 0
        }
    }

    /// Notes where an inode was seen last: of several hard links, the one that is used now. `isMoved`: this mount has put it there,
    /// so that whoever was at home where it was is so now.
    func relocate(_ inode: Inode, to parent: Inode, _ name: UnsafePointer<CChar>, isMoved: Bool = false) {
        let same = inode.state.withLock { state in
            guard let location = state.location else { return state.pinned != nil }
            return location.parent === parent && strcmp(location.name, name) == 0
        }
        if same || inode === rootInode { return }
        table.retain(parent)
        let location = Inode.Location(parent: parent, name: Self.stored(name))
        let old = inode.state.withLock { state in
            let old = state.location?.parent
            state.location = location
            state.pinned = nil
            state.keptPin = nil
            if hasPlaces, !isMoved {
                state.isPlaceVerified = false
                if inode.kind == .directory { state.headerChanged() }
            }
            return old
        }
        if let old { table.release(old) }
    }

    private static func stored(_ name: UnsafePointer<CChar>) -> [CChar] {
        Array(UnsafeBufferPointer(start: name, count: strlen(name) + 1))
    }

    /// Keeps an inode reachable whose name is about to go; with the last name it leaves the table.
    ///
    /// `info` is the entry's state just before. The caller then removes the name, and calls `unpin` if that failed.
    func pin(_ info: stat, _ directory: Descriptor, _ name: UnsafePointer<CChar>) throws(Errno) -> Inode? {
        guard let inode = table.find(InodeKey(info)) else { return nil }
        do {
            let descriptor = try Lower.open(directory, name, flags: Int32(LINUX_O_PATH))
            inode.state.withLock { $0.pinned = descriptor }
            return inode
        } catch {
            table.release(inode)
            throw error
        }
    }

    /// Ends what `pin` began: `removed` says that the name is gone.
    func unpin(_ inode: Inode, removed: Bool, last: Bool) {
        if removed, last {
            // A directory's keys go at once, and what has none is not read again.
            inode.state.withLock { $0.handle = nil }
            table.detach(inode)
        } else {
            let kept = removed ? pins.take(atMost: options.handleCapacity) : nil
            inode.state.withLock { state in
                state.keptPin = kept
                if kept == nil { state.pinned = nil }
            }
        }
        table.release(inode)
    }

    /// A directory that is gone, and that somebody still has.
    func isRemoved(_ inode: Inode) -> Bool { inode.kind == .directory && inode !== rootInode && !table.holds(inode) }
}
