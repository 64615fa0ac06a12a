import CLinux
import Storage
import VolumeFormat

/// A program's credentials, as far as creation needs them.
package struct Credentials: Sendable {
    package var uid: uid_t
    package var gid: gid_t

    package init(uid: uid_t, gid: gid_t) {
        self.uid = uid
        self.gid = gid
    }
}

extension Volume {
    /// Attributes as a program sees them: the lower inode's, with the plaintext size.
    package func attributes(_ inode: Inode) throws(Errno) -> stat {
        // The root's tell nothing, and programs that unmount ask for them.
        if inode !== rootInode { _ = try keys(inode.zone) }
        return try settledAttributes(inode)
    }

    /// The same, also while the zone drains.
    func settledAttributes(_ inode: Inode) throws(Errno) -> stat {
        let content = inode.kind == .regular ? inode.state.withLock { $0.content } : nil
        if let content { return try attributes(inode, content, try content.lowerAttributes()) }
        return try presented(inode, try lowerAttributes(inode))
    }

    /// fstat(2) or fstatat(2) of an inode that is not open here.
    func lowerAttributes(_ inode: Inode) throws(Errno) -> stat {
        for _ in 0..<16 {
            let (location, pinned) = inode.state.withLock { ($0.location, $0.pinned) }
            if let pinned { return try Lower.stat(pinned) }
            guard let location else { break }
            do {
                let info = try LowerPlace(volume: self, directory: try handle(location.parent).descriptor)
                    .stat(location.name)
                if InodeKey(info) == inode.key { return info }
            } catch {
                guard error == .noEntry else { throw error }
            }
            sched_yield()
        }
        guard inode === rootInode else { throw .stale }
        return try Lower.stat(lowerRoot)
    }

    /// Replaces what the lower inode says about size by what a program shall see.
    func presented(_ inode: Inode, _ info: stat) throws(Errno) -> stat {
        var info = info
        switch inode.kind {
        case .regular:
            if let content = inode.state.withLock({ $0.content }) { return try attributes(inode, content, info) }
            info.st_size = off_t(try plainSize(inode, info))
        case .symbolicLink:
            info.st_size = off_t(try linkSize(inode, info))
        case .directory:
            let isSetgid = info.st_mode & mode_t(S_ISGID) != 0
            inode.state.withLock { $0.isSetgid = isSetgid }
            // The volume's own directory does not show.
            if inode === rootInode, info.st_nlink > 2 { info.st_nlink -= 1 }
        case .special: break
        }
        return info
    }

    private func attributes(_ inode: Inode, _ content: FileContent, _ info: stat) throws(Errno) -> stat {
        var info = info
        info.st_size = off_t(content.size)
        return info
    }

    /// The plaintext size by the lower length alone; only a file that a crash left open is looked into.
    private func plainSize(_ inode: Inode, _ info: stat) throws(Errno) -> UInt64 {
        switch Geometry.interpret(lowerLength: UInt64(info.st_size)) {
        case .size(let size): return size
        case .unwritten: return 0
        // Let it be seen, and removed; opening it says what is wrong.
        case .invalid: return UInt64(info.st_size)
        case .lastPageDecides(let pages):
            let last = PageIndex(rawValue: pages - 1)
            let whole = Geometry.plainStart(of: last) + UInt64(Geometry.capacity(of: last))
            // What was removed before it was closed has no header that tells.
            guard info.st_nlink > 0 else { return whole }
            do {
                let content = try openContent(inode, forWriting: false)
                defer { closeContent(content) }
                return content.size
            } catch {
                guard error == .io || error == .access else { throw error }
                return whole
            }
        }
    }
}
