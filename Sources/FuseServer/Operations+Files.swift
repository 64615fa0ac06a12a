import CFuse
import CLinux
import Storage
import VolumeEngine

/// Open files: create, open, read, write, release, fsync, fallocate, lseek, copy_file_range.
extension FileSystem {
    static func addFiles(to operations: inout fuse_lowlevel_ops) {
        operations.create = { raw, parent, name, mode, info in
            guard let raw, let info else { return }
            fileSystem(raw).create(FuseRequest(raw), parent, name, mode, info)
        }
        operations.open = { raw, node, info in
            guard let raw, let info else { return }
            fileSystem(raw).open(FuseRequest(raw), node, info)
        }
        operations.release = { raw, _, info in
            guard let raw, let info else { return }
            let handle = Handle.take(info.pointee.fh, as: FileHandle.self)
            fileSystem(raw).volume.closeContent(handle.content)
            FuseRequest(raw).replyOK()
        }
        operations.read = { raw, _, size, offset, info in
            guard let raw, let info else { return }
            fileSystem(raw).read(FuseRequest(raw), Handle.object(info.pointee.fh), UInt64(offset), size)
        }
        operations.write = { raw, _, data, size, offset, info in
            guard let raw, let info else { return }
            let data = UnsafeRawBufferPointer(start: data, count: size)
            fileSystem(raw).write(FuseRequest(raw), Handle.object(info.pointee.fh), UInt64(offset), data)
        }
        operations.fsync = { raw, _, dataOnly, info in
            guard let raw, let info else { return }
            let handle: FileHandle = Handle.object(info.pointee.fh)
            fileSystem(raw).perform(FuseRequest(raw)) { (_) throws(Errno) in try handle.sync(dataOnly: dataOnly != 0) }
        }
        operations.fallocate = { raw, _, mode, offset, length, info in
            guard let raw, let info else { return }
            let handle: FileHandle = Handle.object(info.pointee.fh)
            fileSystem(raw).perform(FuseRequest(raw)) { (_) throws(Errno) in
                guard offset >= 0, length > 0 else { throw .invalid }
                try handle.content.allocate(AllocateMode(rawValue: mode), at: UInt64(offset), count: UInt64(length))
            }
        }
        // No lseek: the kernel asks for holes without flushing what it holds, so any answer from here could make a program skip
        // bytes that another one has just written. Without it the kernel answers for itself: data up to the end.
        operations.copy_file_range = { raw, _, from, source, _, to, target, length, flags in
            guard let raw, let source, let target else { return }
            fileSystem(raw).copy(
                FuseRequest(raw), Handle.object(source.pointee.fh), UInt64(from), Handle.object(target.pointee.fh),
                UInt64(to), length, flags)
        }
    }

    private func create(
        _ request: consuming FuseRequest, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>?, _ mode: mode_t,
        _ info: UnsafeMutablePointer<fuse_file_info>
    ) {
        let context = request.context
        lethefs_set_thread_umask(context.umask)
        do {
            if volume.options.readOnly { return request.reply(.readOnly) }
            let made = try volume.create(
                inode(parent), bytes(name), mode: mode, flags: info.pointee.flags, Credentials(context))
            let handle = FileHandle(made.content, isWriter: true)
            info.pointee.fh = Handle.pass(handle)
            info.pointee.keep_cache = 1
            var parameters = parameters(made.entry)
            if !request.reply(entry: &parameters, file: &info.pointee) {
                // The program was interrupted: the kernel knows neither handle nor node.
                volume.closeContent(Handle.take(info.pointee.fh, as: FileHandle.self).content)
                volume.forget(made.entry.inode, count: 1)
            }
        } catch {
            request.reply(error)
        }
    }

    private func open(
        _ request: consuming FuseRequest, _ node: fuse_ino_t, _ info: UnsafeMutablePointer<fuse_file_info>
    ) {
        let inode = inode(node)
        let flags = info.pointee.flags
        let clearsSetID = lethefs_request_flags() & LETHEFS_KILL_SUIDGID.rawValue != 0
        do throws(Errno) {
            let isWriter = flags & O_ACCMODE != O_RDONLY
            let truncates = flags & O_TRUNC != 0
            let content = try volume.openContent(inode, forWriting: isWriter || truncates)
            do throws(Errno) {
                if truncates { try content.truncate(to: 0) }
                if clearsSetID { try volume.clearSetID(inode) }
            } catch {
                volume.closeContent(content)
                throw error
            }
            info.pointee.fh = Handle.pass(FileHandle(content, isWriter: isWriter))
            info.pointee.keep_cache = 1
            if !request.reply(open: &info.pointee) {
                volume.closeContent(Handle.take(info.pointee.fh, as: FileHandle.self).content)
            }
        } catch {
            request.reply(error)
        }
    }

    private func read(_ request: consuming FuseRequest, _ handle: FileHandle, _ offset: UInt64, _ count: Int) {
        let buffer = volume.buffers.take()
        defer { volume.buffers.give(buffer) }
        do {
            request.reply(
                bytes: try handle.content.read(at: offset, count: count, buffer, landing: lethefs_reply_space(count)))
        } catch {
            request.reply(error)
        }
    }

    private func write(
        _ request: consuming FuseRequest, _ handle: FileHandle, _ offset: UInt64, _ data: UnsafeRawBufferPointer
    ) {
        let clearsSetID = lethefs_request_flags() & LETHEFS_KILL_SUIDGID.rawValue != 0
        let buffer = volume.buffers.take()
        defer { volume.buffers.give(buffer) }
        do {
            try handle.content.write(data, at: offset, buffer)
            if clearsSetID { try volume.clearSetID(handle.content.inode) }
            request.reply(written: data.count)
        } catch {
            request.reply(error)
        }
    }

    /// Copies by way of memory, a request's size at a time: ciphertext is bound to its file.
    private func copy(
        _ request: consuming FuseRequest, _ source: FileHandle, _ from: UInt64, _ target: FileHandle, _ to: UInt64,
        _ length: Int, _ flags: Int32
    ) {
        guard flags == 0 else { return request.reply(.invalid) }
        let read = volume.buffers.take()
        let write = volume.buffers.take()
        defer {
            volume.buffers.give(read)
            volume.buffers.give(write)
        }
        var done = 0
        do throws(Errno) {
            // Bounded, so that a signal is heard between calls.
            while done < min(length, 64 << 20) {
                let data = try source.content.read(at: from + UInt64(done), count: length - done, read)
                if data.isEmpty { break }
                try target.content.write(data, at: to + UInt64(done), write)
                done += data.count
            }
            request.reply(written: done)
        } catch {
            if done > 0 { request.reply(written: done) } else { request.reply(error) }
        }
    }
}
