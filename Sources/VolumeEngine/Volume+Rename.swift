import CLinux
import Storage
import VolumeFormat

extension Volume {
    /// renameat2(2) with its flags: RENAME_NOREPLACE, RENAME_EXCHANGE or none.
    package func rename(
        _ oldParent: Inode, _ oldName: UnsafeRawBufferPointer, _ newParent: Inode, _ newName: UnsafeRawBufferPointer,
        flags: UInt32
    ) throws(Errno) {
        guard flags & ~UInt32(LINUX_RENAME_NOREPLACE | LINUX_RENAME_EXCHANGE) == 0 else { throw .invalid }
        try placing.reading { () throws(Errno) in try move(oldParent, oldName, newParent, newName, flags: flags) }
    }

    private func move(
        _ oldParent: Inode, _ oldName: UnsafeRawBufferPointer, _ newParent: Inode, _ newName: UnsafeRawBufferPointer,
        flags: UInt32
    ) throws(Errno) {
        let old = try admitted(oldParent)
        let new = try admitted(newParent)
        guard old.zone == new.zone, try !transitions.isParting(oldParent, newParent, self) else { throw .crossDevice }
        try old.withLowerName(oldName) { (from) throws(Errno) in
            try new.withLowerName(newName) { (to) throws(Errno) in
                try Renaming(
                    volume: self, oldParent: oldParent, newParent: newParent, old: old, new: new, from: from, to: to
                ).run(flags: flags)
            }
        }
    }

    /// link(2).
    package func link(_ inode: Inode, to parent: Inode, _ name: UnsafeRawBufferPointer) throws(Errno) -> Entry {
        try placing.reading { () throws(Errno) in try addLink(inode, to: parent, name) }
    }

    private func addLink(_ inode: Inode, to parent: Inode, _ name: UnsafeRawBufferPointer) throws(Errno) -> Entry {
        let handle = try admitted(parent)
        guard inode.zone == handle.zone else { throw .crossDevice }
        guard inode.kind != .directory else { throw .perm }
        guard try !transitions.forbidsLink(inode, in: parent, self) else { throw .crossDevice }
        return try handle.withLowerName(name) { (lower) throws(Errno) in
            let node = try open(inode, flags: Int32(LINUX_O_PATH))
            try handle.makeSidecar(lower)
            do throws(Errno) {
                try gainingPlace(inode, node, handle, lower) { () throws(Errno) in
                    try Lower.link(handle.descriptor, node.procPath, handle.descriptor, lower.text, follow: true)
                }
            } catch {
                if error != .exists { handle.removeSidecar(lower) }
                throw error
            }
            moves.note(inode.key, in: table)
            return try adopt(try Lower.stat(handle.descriptor, lower.text), parent, handle, lower.text)
        }
    }
}

/// One rename on its way.
private struct Renaming {
    let volume: Volume
    let oldParent: Inode
    let newParent: Inode
    let old: DirectoryHandle
    let new: DirectoryHandle
    let from: LowerName
    let to: LowerName

    func run(flags: UInt32) throws(Errno) {
        let source = try Lower.stat(old.descriptor, from.text)
        let target = try existing()
        let isExchange = flags & UInt32(LINUX_RENAME_EXCHANGE) != 0
        if isExchange, target == nil { throw .noEntry }
        if flags & UInt32(LINUX_RENAME_NOREPLACE) != 0, target != nil { throw .exists }
        // Two names of one file: nothing happens, and nothing may be cleaned up.
        if let target, InodeKey(target) == InodeKey(source) { return }
        guard volume.hasPlaces else { return try run(source, target, flags) }
        let moves = PlaceMoves(
            volume: volume, from: PlaceMoves.End(directory: old, name: from),
            to: PlaceMoves.End(directory: new, name: to))
        try moves.around(source, target, isExchange: isExchange) { () throws(Errno) in
            try run(source, target, flags)
        }
    }

    private func run(_ source: stat, _ target: stat?, _ flags: UInt32) throws(Errno) {
        if let target, flags & UInt32(LINUX_RENAME_EXCHANGE) != 0 {
            try Lower.rename(old.descriptor, from.text, new.descriptor, to.text, flags: flags)
            relocate(source, newParent, to)
            relocate(target, oldParent, from)
            return
        }
        try new.makeSidecar(to)
        do throws(Errno) {
            if let target { try replace(target, source) } else { try move(source, flags: flags) }
        } catch {
            if target == nil { new.removeSidecar(to) }
            throw error
        }
        old.removeSidecar(from)
    }

    private func existing() throws(Errno) -> stat? {
        do throws(Errno) { return try Lower.stat(new.descriptor, to.text) } catch {
            guard error == .noEntry else { throw error }
            return nil
        }
    }

    /// What is known to be at the old place is known to be at the new one at once: whoever needs it meanwhile looks there, however long the rest takes.
    private func move(_ source: stat, flags: UInt32 = 0) throws(Errno) {
        try Lower.rename(old.descriptor, from.text, new.descriptor, to.text, flags: flags)
        relocate(source, newParent, to)
    }

    private func replace(_ target: stat, _ source: stat) throws(Errno) {
        let isDirectory = Inode.Kind(mode: target.st_mode) == .directory
        guard isDirectory == (Inode.Kind(mode: source.st_mode) == .directory) else {
            throw isDirectory ? .isDirectory : .notDirectory
        }
        guard isDirectory else {
            return try volume.remove(target, new, to.text) { () throws(Errno) in try move(source) }
        }
        try replaceDirectory(target, source)
    }

    /// The lower directory in the way is empty but for its header, so the lower rename would refuse. Both change places in one
    /// step, and the empty one is then removed from the old place.
    private func replaceDirectory(_ target: stat, _ source: stat) throws(Errno) {
        let directory = try LowerPlace(volume: volume, directory: new.descriptor).openDirectory(to.text)
        let holding = try volume.holding(directory)
        guard holding != .entries else { throw .notEmpty }
        try volume.remove(target, new, to.text) { () throws(Errno) in
            try move(source, flags: UInt32(LINUX_RENAME_EXCHANGE))
        }
        do throws(Errno) { try removeReplaced(directory, holding) } catch {
            // Otherwise a rename that the program is told has failed would have been done by half.
            try Lower.rename(
                old.descriptor, from.text, new.descriptor, to.text, flags: UInt32(LINUX_RENAME_EXCHANGE))
            relocate(source, oldParent, from)
            throw error
        }
    }

    private func removeReplaced(_ directory: Descriptor, _ holding: Volume.Holding) throws(Errno) {
        let temporary = try Volume.temporaryName()
        do throws(Errno) { try Lower.rename(old.descriptor, from.text, old.descriptor, temporary) } catch {
            guard error == .noSpace, holding == .header else { throw error }
            return try volume.removeInPlace(directory, from.text, in: old.descriptor)
        }
        volume.discard(temporary, in: old.descriptor, directory, holding)
    }

    private func relocate(_ info: stat, _ parent: Inode, _ name: LowerName) {
        if let inode = volume.table.find(InodeKey(info)) {
            volume.relocate(inode, to: parent, name.text, isMoved: true)
            volume.table.release(inode)
        }
        // A sweep that hears of it looks for it where it is now.
        volume.moves.note(InodeKey(info), in: volume.table)
    }
}
