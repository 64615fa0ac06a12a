import CLinux
import Storage
import Synchronization
import VolumeFormat

/// A directory outside the volume into which `check --salvage` copies what opens.
final class SalvageDirectory: Sendable {
    let descriptor: Descriptor
    // Owner, mode and times come last: what is copied into it changes the times, and by its mode could perhaps not be.
    private let info: stat?

    /// Where something was copied to.
    struct Place: Sendable {
        let directory: SalvageDirectory
        let name: [CChar]
    }

    /// A new directory, or an empty one, and ENOTEMPTY else: what is there already, a link or a device, would be written to.
    init(path: String) throws(Errno) {
        if mkdir(path, 0o700) != 0, Errno.current != .exists { throw .current }
        descriptor = try Lower.open(path: path, flags: O_RDONLY | O_DIRECTORY)
        info = nil
        guard try LowerEntry.areNone(in: descriptor) else { throw .notEmpty }
    }

    private init(_ descriptor: Descriptor, _ info: stat) {
        self.descriptor = descriptor
        self.info = info
    }

    /// A directory below. Like all that is copied, it is new: EEXIST where the name is taken.
    func directory(_ name: [UInt8], _ info: stat) throws(Errno) -> SalvageDirectory {
        let name = Self.terminated(name)
        try Lower.makeDirectory(descriptor, name, mode: 0o700)
        let made = try Lower.open(descriptor, name, flags: O_RDONLY | O_DIRECTORY)
        return SalvageDirectory(made, info)
    }

    func file(_ name: [UInt8], _ info: stat) throws(Errno) -> File {
        let opened = try Lower.open(
            descriptor, Self.terminated(name), flags: O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
        return File(opened, info)
    }

    func link(_ name: [UInt8], _ target: [UInt8], _ info: stat) throws(Errno) {
        let (name, target) = (Self.terminated(name), Self.terminated(target))
        try Lower.symlink(target: target, descriptor, name)
        try finish(name, info)
    }

    /// Neither that an entry is a device node nor of which device is authenticated, and whoever opens a copy would open that.
    static func isDevice(_ info: stat) -> Bool {
        let kind = info.st_mode & mode_t(S_IFMT)
        return kind != mode_t(S_IFIFO) && kind != mode_t(S_IFSOCK)
    }

    /// A pipe or a socket.
    func special(_ name: [UInt8], _ info: stat) throws(Errno) {
        guard !Self.isDevice(info) else { throw .perm }
        let kind = info.st_mode & mode_t(S_IFMT)
        let name = Self.terminated(name)
        try Lower.makeNode(descriptor, name, mode: kind | 0o600, device: 0)
        try finish(name, info)
    }

    /// Owner, mode and times of what nobody opens.
    private func finish(_ name: [CChar], _ info: stat) throws(Errno) {
        let made = try Lower.open(descriptor, name, flags: Int32(LINUX_O_PATH))
        Self.give(made, info)
        try? Lower.changeTimes(made, access: info.st_atim, modification: info.st_mtim)
    }

    func setAttribute(_ name: String, _ value: [UInt8]) throws(Errno) { try Self.set(descriptor, name, value) }

    /// All that was copied is on the disk; ENOSPC and the like where some storage tells of it only now.
    func sync() throws(Errno) { try Lower.syncAll(descriptor) }

    static func terminated(_ name: [UInt8]) -> [CChar] { name.map(CChar.init(bitPattern:)) + [0] }

    /// Owner and mode, as far as this user may give them. Set-ID bits are not authenticated, and are not copied.
    fileprivate static func give(_ descriptor: Descriptor, _ info: stat) {
        try? Lower.changeOwner(descriptor, uid: info.st_uid, gid: info.st_gid)
        // Links have none.
        if info.st_mode & mode_t(S_IFMT) == mode_t(S_IFLNK) { return }
        try? Lower.changeMode(descriptor, to: info.st_mode & 0o1777)
    }

    fileprivate static func set(_ descriptor: Descriptor, _ name: String, _ value: [UInt8]) throws(Errno) {
        guard name.hasPrefix("user.") else { return }
        try value.withUnsafeBufferPointer { (value) throws(Errno) in
            try Lower.setAttribute(path: descriptor.procPath, name, UnsafeRawBufferPointer(value), flags: 0)
        }
    }

    deinit {
        guard let info else { return }
        Self.give(descriptor, info)
        try? Lower.changeTimes(descriptor, access: info.st_atim, modification: info.st_mtim)
    }

    /// A file being copied out; damaged pages stay holes.
    final class File: Sendable {
        private let descriptor: Descriptor
        private let info: stat
        /// Why something could not be written, where that is so.
        private let failure = Mutex<Errno?>(nil)

        init(_ descriptor: Descriptor, _ info: stat) {
            self.descriptor = descriptor
            self.info = info
        }

        func write(_ data: UnsafeRawBufferPointer, at offset: UInt64) {
            guard let start = data.baseAddress, data.count > 0 else { return }
            do throws(Errno) { try Lower.write(descriptor, from: start, count: data.count, at: offset) } catch {
                failure.withLock { $0 = $0 ?? error }
            }
        }

        func setAttribute(_ name: String, _ value: [UInt8]) throws(Errno) {
            try SalvageDirectory.set(descriptor, name, value)
        }

        /// Throws what first kept something from being written, then or now.
        func finish(size: UInt64) throws(Errno) {
            var failure = failure.withLock { $0 }
            do throws(Errno) { try Lower.truncate(descriptor, to: size) } catch { failure = failure ?? error }
            // What could be copied is its owner's all the same.
            SalvageDirectory.give(descriptor, info)
            do throws(Errno) {
                try Lower.changeTimes(descriptor, access: info.st_atim, modification: info.st_mtim)
            } catch { failure = failure ?? error }
            if let failure { throw failure }
        }
    }
}
