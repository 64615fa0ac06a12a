import CFuse
import CLinux
import Storage
import VolumeEngine

/// getattr, setattr, readlink, statfs and extended attributes.
extension FileSystem {
    static func addAttributes(to operations: inout fuse_lowlevel_ops) {
        operations.getattr = { raw, node, _ in
            guard let raw else { return }
            let fs = fileSystem(raw)
            fs.replyAttributes(FuseRequest(raw), node) { (inode) throws(Errno) in try fs.volume.attributes(inode) }
        }
        operations.setattr = { raw, node, attributes, valid, _ in
            guard let raw, let attributes else { return }
            let fs = fileSystem(raw)
            let changes = AttributeChanges(attributes.pointee, valid)
            fs.replyAttributes(FuseRequest(raw), node) { (inode) throws(Errno) in
                try fs.volume.setAttributes(inode, changes)
            }
        }
        operations.readlink = { raw, node in
            guard let raw else { return }
            fileSystem(raw).readLink(FuseRequest(raw), node)
        }
        operations.statfs = { raw, _ in
            guard let raw else { return }
            fileSystem(raw).replyStatistics(FuseRequest(raw))
        }
        operations.setxattr = { raw, node, name, value, size, flags in
            guard let raw, let name else { return }
            let request = FuseRequest(raw)
            let program = ACLSetter(request, name)
            fileSystem(raw).perform(request) { (fs) throws(Errno) in
                let inode = fs.inode(node)
                try fs.volume.setAttribute(
                    inode, try attributeName(name), UnsafeRawBufferPointer(start: value, count: size), flags: flags)
                try program?.clearSetGID(of: inode, fs.volume)
            }
        }
        operations.getxattr = { raw, node, name, size in
            guard let raw, let name else { return }
            let fs = fileSystem(raw)
            fs.replyBytes(FuseRequest(raw), limit: size) { () throws(Errno) in
                try fs.volume.getAttribute(fs.inode(node), try attributeName(name))
            }
        }
        operations.listxattr = { raw, node, size in
            guard let raw else { return }
            let fs = fileSystem(raw)
            let request = FuseRequest(raw)
            // xattr(7): the trusted name space shows to the privileged alone.
            let isPrivileged = request.context.uid == 0
            fs.replyBytes(request, limit: size) { () throws(Errno) in
                try fs.volume.listAttributes(fs.inode(node))
                    .filter { isPrivileged || !$0.hasPrefix("trusted.") }.flatMap { Array($0.utf8) + [0] }
            }
        }
        operations.removexattr = { raw, node, name in
            guard let raw, let name else { return }
            fileSystem(raw).perform(FuseRequest(raw)) { (fs) throws(Errno) in
                try fs.volume.removeAttribute(fs.inode(node), try attributeName(name))
            }
        }
    }

    private func replyAttributes(
        _ request: consuming FuseRequest, _ node: fuse_ino_t, _ body: (Inode) throws(Errno) -> stat
    ) {
        do {
            let inode = inode(node)
            var attributes = try body(inode)
            request.reply(attributes: &attributes, timeout: attributeTimeout(inode))
        } catch {
            request.reply(error)
        }
    }

    /// Size queries (`limit` 0) and values share a call.
    private func replyBytes(_ request: consuming FuseRequest, limit: Int, _ body: () throws(Errno) -> [UInt8]) {
        do {
            let value = try body()
            if limit == 0 { return request.reply(attributeSize: value.count) }
            guard value.count <= limit else { return request.reply(.range) }
            request.reply(bytes: value)
        } catch {
            request.reply(error)
        }
    }

    private func readLink(_ request: consuming FuseRequest, _ node: fuse_ino_t) {
        do {
            let target = try volume.readLink(inode(node))
            request.reply(link: target.map(CChar.init(bitPattern:)) + [0])
        } catch {
            request.reply(error)
        }
    }

    private func replyStatistics(_ request: consuming FuseRequest) {
        do {
            var statistics = try volume.statistics()
            request.reply(statistics: &statistics)
        } catch {
            request.reply(error)
        }
    }
}

extension AttributeChanges {
    /// From what FUSE_SETATTR carries.
    fileprivate init(_ attributes: stat, _ valid: Int32) {
        self.init()
        func has(_ bit: Int32) -> Bool { valid & bit != 0 }
        if has(FUSE_SET_ATTR_MODE) { mode = attributes.st_mode }
        if has(FUSE_SET_ATTR_UID) { uid = attributes.st_uid }
        if has(FUSE_SET_ATTR_GID) { gid = attributes.st_gid }
        if has(FUSE_SET_ATTR_SIZE) { size = UInt64(attributes.st_size) }
        let now = timespec(tv_sec: 0, tv_nsec: (1 << 30) - 1)
        if has(FUSE_SET_ATTR_ATIME) { accessTime = has(FUSE_SET_ATTR_ATIME_NOW) ? now : attributes.st_atim }
        if has(FUSE_SET_ATTR_MTIME) { modificationTime = has(FUSE_SET_ATTR_MTIME_NOW) ? now : attributes.st_mtim }
        clearsSetID = lethefs_request_flags() & LETHEFS_KILL_SUIDGID.rawValue != 0
    }
}

/// The name of an extended attribute. One that is no UTF-8 is refused: it could not be told from another.
private func attributeName(_ name: UnsafePointer<CChar>) throws(Errno) -> String {
    guard let text = String(validatingCString: name) else { throw .notSupported }
    return text
}
