import CFuse
import CLinux
import Storage
import VolumeEngine

/// lookup, forget, and whatever makes, moves or removes a name.
extension FileSystem {
    static func addNames(to operations: inout fuse_lowlevel_ops) {
        operations.lookup = { raw, parent, name in
            guard let raw else { return }
            fileSystem(raw).lookUp(FuseRequest(raw), parent, name)
        }
        operations.forget = { raw, node, count in
            guard let raw else { return }
            let fs = fileSystem(raw)
            fs.volume.forget(fs.inode(node), count: Int(count))
            FuseRequest(raw).replyNothing()
        }
        operations.forget_multi = { raw, count, forgets in
            guard let raw else { return }
            let fs = fileSystem(raw)
            for forget in UnsafeBufferPointer(start: forgets, count: count) {
                fs.volume.forget(fs.inode(forget.ino), count: Int(forget.nlookup))
            }
            FuseRequest(raw).replyNothing()
        }
        operations.mknod = { raw, parent, name, mode, device in
            guard let raw else { return }
            fileSystem(raw).make(FuseRequest(raw)) { (volume, who) throws(Errno) in
                try volume.makeNode(fileSystem(raw).inode(parent), bytes(name), mode: mode, device: device, who)
            }
        }
        operations.mkdir = { raw, parent, name, mode in
            guard let raw else { return }
            fileSystem(raw).make(FuseRequest(raw)) { (volume, who) throws(Errno) in
                try volume.makeDirectory(fileSystem(raw).inode(parent), bytes(name), mode: mode, who)
            }
        }
        operations.symlink = { raw, target, parent, name in
            guard let raw else { return }
            fileSystem(raw).make(FuseRequest(raw)) { (volume, who) throws(Errno) in
                try volume.makeSymbolicLink(fileSystem(raw).inode(parent), bytes(name), target: bytes(target), who)
            }
        }
        operations.link = { raw, node, parent, name in
            guard let raw else { return }
            fileSystem(raw).make(FuseRequest(raw)) { (volume, _) throws(Errno) in
                let fs = fileSystem(raw)
                return try volume.link(fs.inode(node), to: fs.inode(parent), bytes(name))
            }
        }
        operations.unlink = { raw, parent, name in
            guard let raw else { return }
            fileSystem(raw).perform(FuseRequest(raw)) { (fs) throws(Errno) in
                try fs.volume.unlink(fs.inode(parent), bytes(name))
            }
        }
        operations.rmdir = { raw, parent, name in
            guard let raw else { return }
            fileSystem(raw).perform(FuseRequest(raw)) { (fs) throws(Errno) in
                try fs.volume.removeDirectory(fs.inode(parent), bytes(name))
            }
        }
        operations.rename = { raw, parent, name, newParent, newName, flags in
            guard let raw else { return }
            fileSystem(raw).perform(FuseRequest(raw)) { (fs) throws(Errno) in
                try fs.volume.rename(
                    fs.inode(parent), bytes(name), fs.inode(newParent), bytes(newName), flags: flags)
            }
        }
    }

    private func lookUp(_ request: consuming FuseRequest, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>?) {
        do {
            let entry = try volume.lookUp(inode(parent), bytes(name))
            var parameters = parameters(entry)
            request.reply(entry: &parameters)
        } catch  where error == .noEntry {
            var parameters = Self.negative
            request.reply(entry: &parameters)
        } catch {
            request.reply(error)
        }
    }

    /// An operation that gives an entry, under the program's umask.
    private func make(
        _ request: consuming FuseRequest, _ body: (Volume, Credentials) throws(Errno) -> Entry
    ) {
        let context = request.context
        lethefs_set_thread_umask(context.umask)
        do {
            if volume.options.readOnly { throw Errno.readOnly }
            var parameters = parameters(try body(volume, Credentials(context)))
            request.reply(entry: &parameters)
        } catch {
            request.reply(error as? Errno ?? .io)
        }
    }

    /// An operation that gives nothing but its outcome.
    func perform(_ request: consuming FuseRequest, _ body: (FileSystem) throws(Errno) -> Void) {
        do {
            try body(self)
            request.replyOK()
        } catch {
            request.reply(error)
        }
    }
}
