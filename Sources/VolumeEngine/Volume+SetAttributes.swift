import CLinux
import Storage
import VolumeFormat

/// What setattr changes; `nil` leaves a field alone.
package struct AttributeChanges: Sendable {
    package var mode: mode_t?
    package var uid: uid_t?
    package var gid: gid_t?
    package var size: UInt64?
    /// Seconds and nanoseconds; UTIME_NOW in the nanoseconds means now.
    package var accessTime: timespec?
    package var modificationTime: timespec?
    /// A program without CAP_FSETID changes size or owner: set-ID bits go.
    package var clearsSetID = false

    package init() {}

    fileprivate var isModificationTimeOnly: Bool {
        modificationTime != nil && accessTime == nil && mode == nil && uid == nil && gid == nil && size == nil
            && !clearsSetID
    }
}

extension Volume {
    /// chmod(2), chown(2), truncate(2) and utimensat(2), in the order in which one can spoil the other.
    package func setAttributes(_ inode: Inode, _ changes: AttributeChanges) throws(Errno) -> stat {
        if let size = changes.size {
            guard inode.kind == .regular else { throw inode.kind == .directory ? .isDirectory : .invalid }
            let content = try openContent(inode, forWriting: true)
            defer { closeContent(content) }
            try content.truncate(to: size)
        }
        let touchesNode =
            changes.mode != nil || changes.uid != nil || changes.gid != nil || changes.accessTime != nil
            || changes.modificationTime != nil || changes.clearsSetID
        guard touchesNode else { return try settledAttributes(inode) }
        // Not while the last handle's end is writing its bookkeeping: it puts back the times that it found.
        let unchanged = try gate(inode).lock.withLock { (_) throws(Errno) -> stat? in
            if let unchanged = try withTimes(inode, changes) { return unchanged }
            try setNodeAttributes(inode, changes)
            return nil
        }
        if let unchanged { return try presented(inode, unchanged) }
        return try settledAttributes(inode)
    }

    /// The lower attributes of a file that has the times already which are to be set.
    ///
    /// The kernel sends a file's times with each rename, link and removal, for the ctime that has changed with it: what was done below has
    /// changed it there, too. Only a program that sets a time that has long been there needs the call for the sake of the ctime.
    private static let recent = 500_000_000

    private func withTimes(_ inode: Inode, _ changes: AttributeChanges) throws(Errno) -> stat? {
        guard changes.isModificationTimeOnly, let time = changes.modificationTime,
            inode.state.withLock({ $0.content == nil })
        else { return nil }
        let info = try lowerAttributes(inode)
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        // The lower storage may say anything.
        guard (now.tv_sec - 1...now.tv_sec).contains(info.st_ctim.tv_sec) else { return nil }
        let age = (now.tv_sec - info.st_ctim.tv_sec) * 1_000_000_000 + now.tv_nsec - info.st_ctim.tv_nsec
        let isThere = info.st_mtim.tv_sec == time.tv_sec && info.st_mtim.tv_nsec == time.tv_nsec
        return isThere && (0..<Self.recent).contains(age) ? info : nil
    }

    private func setNodeAttributes(_ inode: Inode, _ changes: AttributeChanges) throws(Errno) {
        // Times come with what the kernel stores of a draining zone.
        if changes.mode != nil || changes.uid != nil || changes.gid != nil { try admit(inode) }
        let node = try node(inode)
        if changes.uid != nil || changes.gid != nil {
            // Set-ID bits go with it.
            try withOwnMode { () throws(Errno) in
                try Lower.changeOwner(node.descriptor, uid: changes.uid ?? uid_t.max, gid: changes.gid ?? gid_t.max)
            }
        }
        if let mode = changes.mode {
            try withOwnMode { () throws(Errno) in try node.changeMode(to: mode & 0o7777) }
        } else if changes.clearsSetID {
            try clearSetID(node)
        }
        if changes.accessTime != nil || changes.modificationTime != nil {
            let keep = timespec(tv_sec: 0, tv_nsec: Int(UTIME_OMIT_VALUE))
            try Lower.changeTimes(
                node.descriptor, access: changes.accessTime ?? keep, modification: changes.modificationTime ?? keep)
            if let content = inode.state.withLock({ $0.content }) { try content.noteTimes() }
        }
    }

    /// Takes the set-user-ID bit away, and set-group-ID from what is group-executable, as the kernel does for a write.
    package func clearSetID(_ inode: Inode) throws(Errno) {
        guard inode.kind == .regular else { return }
        try clearSetID(try node(inode))
    }

    /// An inode's lower node, to change what is not content.
    private struct Node {
        let descriptor: Descriptor
        let isPath: Bool

        func changeMode(to mode: mode_t) throws(Errno) {
            if isPath {
                try Lower.changeMode(descriptor, to: mode)
            } else {
                try Lower.changeMode(ofOpen: descriptor, to: mode)
            }
        }
    }

    /// The descriptor of its content if that is open, so that nothing has to be opened.
    private func node(_ inode: Inode) throws(Errno) -> Node {
        if let content = inode.state.withLock({ $0.content }) {
            return Node(descriptor: content.lock.reading { content.descriptor }, isPath: false)
        }
        return Node(descriptor: try open(inode, flags: Int32(LINUX_O_PATH)), isPath: true)
    }

    private func clearSetID(_ node: Node) throws(Errno) {
        try withOwnMode { () throws(Errno) in
            let mode = try Lower.stat(node.descriptor).st_mode
            guard mode & mode_t(S_IFMT) == mode_t(S_IFREG) else { return }
            var cleared = mode & ~mode_t(S_ISUID)
            if mode & 0o010 != 0 { cleared &= ~mode_t(S_ISGID) }
            if cleared != mode { try node.changeMode(to: cleared & 0o7777) }
        }
    }

    /// statfs(2), with this format's own limits.
    package func statistics() throws(Errno) -> statvfs {
        var info = try Lower.statistics(lowerRoot)
        info.f_namemax = UInt(NameEncoding.maximum)
        return info
    }
}

/// UTIME_OMIT of <sys/stat.h>, which Swift does not import.
private let UTIME_OMIT_VALUE = (1 << 30) - 2
