import CLinux
import Storage
import Synchronization
import VolumeFormat

extension Volume {
    /// Opens the content of a regular file, or joins those who have it open. `closeContent` ends each.
    package func openContent(_ inode: Inode, forWriting: Bool) throws(Errno) -> FileContent {
        guard inode.kind == .regular else { throw inode.kind == .directory ? .isDirectory : .invalid }
        if forWriting, options.readOnly { throw .readOnly }
        _ = try keys(inode.zone)
        return try gate(inode).lock.withLock { (_) throws(Errno) in
            if let content = inode.state.withLock({ $0.content }) {
                if hasPlaces { try verifyPlace(ofOpen: content) }
                try content.join(forWriting: forWriting) { () throws(Errno) in
                    let (descriptor, isWritable, _) = try openLower(inode, forWriting: true)
                    if isWritable, content.lock.reading({ content.stage == .unwritten }) {
                        try removeLostAttributes(descriptor)
                    }
                    return (descriptor, isWritable)
                }
                if forWriting { content.noteWriter() }
                return content
            }
            let content = try loadContent(inode, forWriting: forWriting)
            if forWriting { content.noteWriter() }
            inode.state.withLock { $0.content = content }
            table.retain(inode)
            return content
        }
    }

    private func loadContent(_ inode: Inode, forWriting: Bool) throws(Errno) -> FileContent {
        let (descriptor, isWritable, attributes) = try openLower(inode, forWriting: forWriting)
        guard let loaded = try load(inode, descriptor, attributes) else {
            let id = hasPlaces ? try identityWithoutHeader(inode, descriptor) : nil
            // A crash took the header before it was flushed: the file is as if it had just been made. What else there may be was
            // sealed under a DEK that is gone.
            if isWritable {
                try Lower.truncate(descriptor, to: 0)
                try removeLostAttributes(descriptor)
            }
            // It may have been seen before its directory went to another zone.
            if let parent = inode.state.withLock({ $0.location?.parent }) { inode.setZone(try handle(parent).zone) }
            let content = try FileContent(creating: inode, in: self, descriptor: descriptor, id: id)
            content.isWritable = isWritable
            content.tailIsDoubtful = !isWritable
            return content
        }
        if hasPlaces { try verifyPlace(of: inode, loaded.header.file, LowerNode(descriptor)) }
        let content = FileContent(loaded, inode: inode, volume: self, descriptor: descriptor, isWritable: isWritable)
        content.noteRaggedTree()
        return content
    }

    /// One handle less; the last one brings the header up to date.
    package func closeContent(_ content: FileContent) {
        let inode = content.inode
        let isLast = gate(inode).lock.withLock { _ in
            content.openCount -= 1
            guard content.openCount == 0 else { return false }
            content.lock.writing {
                do throws(Errno) { try content.settle() } catch { markDirty() }
                content.edge.wipe()
            }
            closeTree(content)
            inode.state.withLock { $0.content = nil }
            return true
        }
        if isLast { table.release(inode) }
    }

    /// Brings every file that is still open up to date: the kernel has gone, and will not close them.
    package func settleAll() {
        for inode in table.retainAll() {
            if let content = inode.state.withLock({ $0.content }) {
                content.lock.writing { do throws(Errno) { try content.settle() } catch { markDirty() } }
            }
            table.release(inode)
        }
    }

    /// Opens the lower file for reading and writing where that is possible: even a program that only writes needs the rest of
    /// the pages it writes to.
    private func openLower(_ inode: Inode, forWriting: Bool) throws(Errno) -> (Descriptor, Bool, stat?) {
        if !options.readOnly {
            do throws(Errno) {
                let opened = try openSeen(inode, flags: O_RDWR | O_NONBLOCK | O_NOCTTY)
                return (opened.descriptor, true, opened.attributes)
            } catch {
                if forWriting || mayStoreBesides, error == .access, !isPrivileged,
                    let opened = try openAgainstMode(try open(inode, flags: Int32(LINUX_O_PATH)), flags: O_RDWR)
                {
                    return (opened, true, nil)
                }
                switch error {
                case .access, .perm, .readOnly, .textBusy: break
                default: throw error
                }
                if forWriting { throw error }
            }
        }
        do throws(Errno) {
            let opened = try openSeen(inode, flags: O_RDONLY | O_NONBLOCK | O_NOCTTY)
            return (opened.descriptor, false, opened.attributes)
        } catch {
            guard error == .access, !isPrivileged else { throw error }
            let node = try open(inode, flags: Int32(LINUX_O_PATH))
            guard let opened = try openAgainstMode(node, flags: O_RDONLY) else { throw error }
            return (opened, false, nil)
        }
    }

    /// Whether something of a file that is only read may have to be stored: nodes of its page tree, its place, what a crash left in doubt.
    private var mayStoreBesides: Bool { trees != nil || hasPlaces || isAfterCrash || isDirty }
}

extension FileContent {
    /// Another handle. The first writer may need a descriptor that can write. The caller holds the gate.
    func join(
        forWriting: Bool, _ reopen: () throws(Errno) -> (Descriptor, Bool)
    ) throws(Errno) {
        if forWriting, !lock.reading({ isWritable }) {
            let (descriptor, isWritable) = try reopen()
            lock.writing {
                self.descriptor = descriptor
                self.isWritable = isWritable
            }
        }
        openCount += 1
    }
}

/// One open(2) of a file: what `fh` stands for.
package final class FileHandle: Sendable {
    package let content: FileContent
    /// The program may write through it.
    package let isWriter: Bool
    private let reported: Mutex<UInt64>

    package init(_ content: FileContent, isWriter: Bool) {
        self.content = content
        self.isWriter = isWriter
        reported = Mutex(content.failureCount)
    }

    /// fsync(2) or fdatasync(2). A failure is reported once through each handle, even to those who did not ask for that flush.
    package func sync(dataOnly: Bool) throws(Errno) {
        do { try content.flush(dataOnly: dataOnly) } catch {
            content.noteFailure()
            reported.withLock { $0 = content.failureCount }
            throw error
        }
        let isNew = reported.withLock { reported in
            defer { reported = content.failureCount }
            return reported != content.failureCount
        }
        if isNew { throw .io }
    }
}

extension FileContent {
    /// Gives a file that was made just now its header: something is about to depend on it.
    func storeFirstHeader() throws(Errno) {
        guard lock.reading({ stage == .unwritten && isWritable }) else { return }
        try ensureKeys()
        // The gate: whoever sets the times does it before, or after.
        try volume.gate(inode).lock.withLock { (_) throws(Errno) in
            try lock.writing { () throws(Errno) in
                guard stage == .unwritten, isWritable else { return }
                try requireKeys()
                let before = try Lower.stat(descriptor)
                _ = try prepareHeader(sealing: 0, inPlace: false)
                try volume.keepTimes(descriptor, before)
            }
        }
    }

    /// Flushes the lower file. A file that has no header yet gets one first.
    func flush(dataOnly: Bool) throws(Errno) {
        try storeFirstHeader()
        try syncLower(lock.reading { descriptor }, dataOnly: dataOnly)
    }

    /// Flushes the lower file by one of its descriptors. That it failed is remembered for as long as the volume is mounted.
    func syncLower(_ descriptor: Descriptor, dataOnly: Bool = false) throws(Errno) {
        do throws(Errno) { try Lower.sync(descriptor, dataOnly: dataOnly) } catch {
            volume.noteLostFlush(tree.map { [$0] } ?? [])
            throw error
        }
    }
}
