import CFuse
import CLinux
import Storage
import VolumeEngine

/// readdir, readdirplus, fsyncdir. There is no opendir and no releasedir: a listing is read by node and offset alone (`Volume.readDirectory`), so that
/// whoever opens a directory that the kernel has listed already costs no request at all. A revocation takes the listings with everything else
/// that the kernel knows of the inode.
extension FileSystem {
    static func addDirectories(to operations: inout fuse_lowlevel_ops) {
        // Linux 5.1 and later does not ask again.
        operations.opendir = { raw, _, _ in
            guard let raw else { return }
            FuseRequest(raw).reply(.notImplemented)
        }
        operations.fsyncdir = { raw, node, dataOnly, _ in
            guard let raw else { return }
            fileSystem(raw).perform(FuseRequest(raw)) { (files) throws(Errno) in
                try files.volume.syncDirectory(files.inode(node), dataOnly: dataOnly != 0)
            }
        }
        operations.readdir = { raw, node, size, offset, _ in
            guard let raw else { return }
            fileSystem(raw).readDirectory(FuseRequest(raw), node, size, offset, plus: false)
        }
        operations.readdirplus = { raw, node, size, offset, _ in
            guard let raw else { return }
            fileSystem(raw).readDirectory(FuseRequest(raw), node, size, offset, plus: true)
        }
    }

    private func readDirectory(
        _ request: consuming FuseRequest, _ node: fuse_ino_t, _ size: Int, _ offset: off_t, plus: Bool
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
        let (pointer, reader) = (request.pointer, request.context.pid)
        let directory = inode(node)
        var used = 0
        // Inodes that the kernel gets with it, unless it gets nothing.
        var given: [Inode] = []
        do throws(Errno) {
            do throws(Errno) {
                try volume.readDirectory(directory, from: Int64(offset), for: reader) { (item) throws(Errno) in
                    let (place, room) = (output + used, size - used)
                    let needed =
                        plus
                        ? try addPlus(pointer, place, room, directory, item, &given)
                        : add(pointer, place, room, item)
                    guard needed <= room else { return false }
                    used += needed
                    return true
                }
            } catch  where used > 0 {
                // What was read before the error is given first; the next call meets the error again.
            }
            try volume.mayGive(directory)
        } catch {
            linux_explicit_bzero(output, used)
            for inode in given { volume.forget(inode, count: 1) }
            return request.reply(error)
        }
        request.reply(bytes: UnsafeRawBufferPointer(start: output, count: used))
    }

    private func add(
        _ request: fuse_req_t, _ output: UnsafeMutablePointer<CChar>, _ room: Int, _ item: DirectoryStream.Item
    ) -> Int {
        var attributes = stat()
        attributes.st_ino = ino_t(item.number)
        attributes.st_mode = mode_t(item.type) << 12
        return fuse_add_direntry(request, output, room, Self.text(item), &attributes, off_t(item.next))
    }

    /// 0 for an entry that has gone since the record was read.
    private func addPlus(
        _ request: fuse_req_t, _ output: UnsafeMutablePointer<CChar>, _ room: Int, _ directory: Inode,
        _ item: DirectoryStream.Item, _ given: inout [Inode]
    ) throws(Errno) -> Int {
        // The kernel looks "." and ".." up for itself.
        guard !item.isDot, !item.isLate else { return addBare(request, output, room, item) }
        let entry: Entry?
        do throws(Errno) { entry = try volume.entry(item, in: directory) } catch {
            // A plain user's directory that was opened before its mode kept him out: its names may be seen, and no more.
            guard error == .access else { throw error }
            return addBare(request, output, room, item)
        }
        guard let entry else { return 0 }
        var parameters = parameters(entry)
        let needed = fuse_add_direntry_plus(request, output, room, Self.text(item), &parameters, off_t(item.next))
        if needed > room { volume.forget(entry.inode, count: 1) } else { given.append(entry.inode) }
        return needed
    }

    /// No inode with it: only its name, number and type.
    private func addBare(
        _ request: fuse_req_t, _ output: UnsafeMutablePointer<CChar>, _ room: Int, _ item: DirectoryStream.Item
    ) -> Int {
        var parameters = fuse_entry_param()
        parameters.attr.st_ino = ino_t(item.number)
        parameters.attr.st_mode = mode_t(item.type) << 12
        return fuse_add_direntry_plus(request, output, room, Self.text(item), &parameters, off_t(item.next))
    }

    private static func text(_ item: DirectoryStream.Item) -> UnsafePointer<CChar>? {
        item.name.baseAddress?.assumingMemoryBound(to: CChar.self)
    }
}
