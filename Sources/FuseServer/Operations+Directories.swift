import CFuse
import CLinux
import Storage
import VolumeEngine

/// opendir, readdir, readdirplus, releasedir, fsyncdir.
extension FileSystem {
    static func addDirectories(to operations: inout fuse_lowlevel_ops) {
        operations.opendir = { raw, node, info in
            guard let raw, let info else { return }
            fileSystem(raw).openDirectory(FuseRequest(raw), node, info)
        }
        operations.releasedir = { raw, _, info in
            guard let raw, let info else { return }
            _ = Handle.take(info.pointee.fh, as: DirectoryStream.self)
            FuseRequest(raw).replyOK()
        }
        operations.fsyncdir = { raw, _, dataOnly, info in
            guard let raw, let info else { return }
            let stream: DirectoryStream = Handle.object(info.pointee.fh)
            fileSystem(raw).perform(FuseRequest(raw)) { (_) throws(Errno) in try stream.sync(dataOnly: dataOnly != 0) }
        }
        operations.readdir = { raw, _, size, offset, info in
            guard let raw, let info else { return }
            fileSystem(raw).readDirectory(FuseRequest(raw), Handle.object(info.pointee.fh), size, offset, plus: false)
        }
        operations.readdirplus = { raw, _, size, offset, info in
            guard let raw, let info else { return }
            fileSystem(raw).readDirectory(FuseRequest(raw), Handle.object(info.pointee.fh), size, offset, plus: true)
        }
    }

    private func openDirectory(
        _ request: consuming FuseRequest, _ node: fuse_ino_t, _ info: UnsafeMutablePointer<fuse_file_info>
    ) {
        do {
            info.pointee.fh = Handle.pass(try volume.openDirectory(inode(node)))
            // The kernel keeps a listing until the directory changes; a revocation takes it with everything else it knows of the inode.
            info.pointee.cache_readdir = 1
            info.pointee.keep_cache = 1
            if !request.reply(open: &info.pointee) { _ = Handle.take(info.pointee.fh, as: DirectoryStream.self) }
        } catch {
            request.reply(error)
        }
    }

    private func readDirectory(
        _ request: consuming FuseRequest, _ stream: DirectoryStream, _ size: Int, _ offset: off_t, plus: Bool
    ) {
        // Put together in the reply's place, where there is one.
        let place = lethefs_reply_space(size)?.assumingMemoryBound(to: CChar.self)
        let output = place ?? .allocate(capacity: size)
        defer {
            if place == nil {
                linux_explicit_bzero(output, size)
                output.deallocate()
            }
        }
        let pointer = request.pointer
        var used = 0
        do {
            try stream.read(from: Int64(offset)) { (item) throws(Errno) in
                let room = size - used
                let needed =
                    plus
                    ? try self.addPlus(pointer, output + used, room, stream, item)
                    : self.add(pointer, output + used, room, item)
                guard needed <= room else { return false }
                used += needed
                return true
            }
        } catch {
            // What was read before the error is given first; the next call meets the error again.
            if used == 0 { return request.reply(error) }
        }
        request.reply(bytes: UnsafeRawBufferPointer(start: output, count: used))
    }

    private func add(
        _ request: fuse_req_t, _ output: UnsafeMutablePointer<CChar>, _ room: Int, _ item: DirectoryStream.Item
    ) -> Int {
        var attributes = stat()
        attributes.st_ino = ino_t(item.number)
        attributes.st_mode = mode_t(item.type) << 12
        return fuse_add_direntry(
            request, output, room, item.name.baseAddress?.assumingMemoryBound(to: CChar.self), &attributes,
            off_t(item.next))
    }

    /// 0 for an entry that has gone since the record was read.
    private func addPlus(
        _ request: fuse_req_t, _ output: UnsafeMutablePointer<CChar>, _ room: Int, _ stream: DirectoryStream,
        _ item: DirectoryStream.Item
    ) throws(Errno) -> Int {
        let name = item.name.baseAddress?.assumingMemoryBound(to: CChar.self)
        guard !item.isDot else {
            // The kernel looks "." and ".." up for itself.
            var parameters = fuse_entry_param()
            parameters.attr.st_ino = ino_t(item.number)
            parameters.attr.st_mode = mode_t(S_IFDIR)
            return fuse_add_direntry_plus(request, output, room, name, &parameters, off_t(item.next))
        }
        guard !item.isLate else {
            // No inode with it: only its name, number and type.
            var parameters = fuse_entry_param()
            parameters.attr.st_ino = ino_t(item.number)
            parameters.attr.st_mode = mode_t(item.type) << 12
            return fuse_add_direntry_plus(request, output, room, name, &parameters, off_t(item.next))
        }
        guard let entry = try stream.entry(item) else { return 0 }
        var parameters = parameters(entry)
        let needed = fuse_add_direntry_plus(request, output, room, name, &parameters, off_t(item.next))
        if needed > room { volume.forget(entry.inode, count: 1) }
        return needed
    }
}
