import CLinux
import Storage

extension Volume {
    /// A listing from `start` on, 0 for its beginning. The header is read first: a directory that cannot be read fails here.
    package func openDirectory(_ inode: Inode, from start: Int64 = 0) throws(Errno) -> DirectoryStream {
        try admit(inode)
        let descriptor = try openListable(inode)
        if start != 0 { try Lower.seekDirectory(descriptor, to: start) }
        return DirectoryStream(inode, volume: self, descriptor: descriptor, offset: start)
    }

    /// What getdents(2) does: calls `body` for the entries from `start` on until it returns false; then that entry is given again next time. Whoever
    /// has read comes back for more, if only to learn that there is none, so what is at hand is kept for `reader`, the thread that asks.
    ///
    /// Before the names leave, `mayGive` is asked.
    package func readDirectory(
        _ inode: Inode, from start: Int64, for reader: pid_t,
        _ body: (DirectoryStream.Item) throws(Errno) -> Bool
    ) throws(Errno) {
        _ = try admitted(inode)
        let stream: DirectoryStream
        if let left = try listings.take(inode, at: start, for: reader) {
            stream = left
        } else {
            stream = try openToList(inode, from: start)
        }
        var isAtEnd = true
        try stream.read { (item) throws(Errno) in
            isAtEnd = false
            return try body(item)
        }
        if !isAtEnd { listings.keep(stream, for: reader) }
    }

    /// Those that nobody reads just now are no reason to refuse another one.
    private func openToList(_ inode: Inode, from start: Int64) throws(Errno) -> DirectoryStream {
        do throws(Errno) { return try openDirectory(inode, from: start) } catch {
            guard error == .tooManyOpenFiles else { throw error }
            listings.end()
            return try openDirectory(inode, from: start)
        }
    }

    /// The gate again, before names that were read leave. Nothing comes after a revocation.
    package func mayGive(_ directory: Inode) throws(Errno) { _ = try admitted(directory) }

    /// The inode of an entry with one more reference, and its attributes; `nil` when it has gone meanwhile.
    package func entry(_ item: DirectoryStream.Item, in directory: Inode) throws(Errno) -> Entry? {
        guard let stored = item.stored?.baseAddress?.assumingMemoryBound(to: CChar.self) else { return nil }
        do throws(Errno) {
            return try adopt(try Lower.stat(item.handle.descriptor, stored), directory, item.handle, stored)
        } catch {
            guard error == .noEntry else { throw error }
            return nil
        }
    }

    /// fsync(2) of a directory: no key is needed for that, and programs that hold all the descriptors that they may are no reason to fail.
    package func syncDirectory(_ inode: Inode, dataOnly: Bool) throws(Errno) {
        let descriptor = try openListable(inode, for: .daemon)
        do throws(Errno) { try Lower.sync(descriptor, dataOnly: dataOnly) } catch {
            noteLostFlush([])
            throw error
        }
    }

    /// By what is at hand: whatever lies above may keep a plain user out by now. The kernel has checked the program's access when it
    /// opened the directory.
    func openListable(
        _ inode: Inode, for purpose: DescriptorBudget.Purpose = .programs
    ) throws(Errno) -> Descriptor {
        let flags = O_RDONLY | O_DIRECTORY
        let (handle, pinned) = inode.state.withLock { ($0.handle, $0.pinned) }
        guard let node = pinned ?? handle?.descriptor else { return try open(inode, flags: flags) }
        if isPrivileged { return try Lower.open(node, ".", flags: flags, for: purpose) }
        do throws(Errno) { return try Lower.open(path: node.procPath, flags: flags, for: purpose) } catch {
            guard error == .access else { throw error }
        }
        guard let opened = try openAgainstMode(node, flags: flags) else { throw .access }
        return opened
    }
}
