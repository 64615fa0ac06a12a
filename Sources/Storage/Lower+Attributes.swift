import CLinux

extension Lower {
    /// chmod(2) of whatever the descriptor refers to, O_PATH included.
    package static func changeMode(_ descriptor: borrowing Descriptor, to mode: mode_t) throws(Errno) {
        let path = descriptor.procPath
        _ = try call(.fchmodat) { Int(fchmodat(AT_FDCWD, path, mode, 0)) }
    }

    /// fchmod(2) of an open file; not of an O_PATH descriptor.
    package static func changeMode(ofOpen descriptor: borrowing Descriptor, to mode: mode_t) throws(Errno) {
        let raw = descriptor.raw
        _ = try call(.fchmodat) { Int(fchmod(raw, mode)) }
    }

    /// fchownat(2) with AT_EMPTY_PATH; -1 leaves an id alone.
    package static func changeOwner(_ descriptor: borrowing Descriptor, uid: uid_t, gid: gid_t) throws(Errno) {
        let raw = descriptor.raw
        _ = try call(.fchownat) { Int(fchownat(raw, "", uid, gid, Int32(LINUX_AT_EMPTY_PATH))) }
    }

    /// fchownat(2) by name, not following a link.
    package static func changeOwner(
        _ directory: borrowing Descriptor, _ name: UnsafePointer<CChar>, uid: uid_t, gid: gid_t
    ) throws(Errno) {
        let raw = directory.raw
        _ = try call(.fchownat) { Int(fchownat(raw, name, uid, gid, AT_SYMLINK_NOFOLLOW)) }
    }

    /// fchmodat(2) by name; the name is not a symbolic link.
    package static func changeMode(
        _ directory: borrowing Descriptor, _ name: UnsafePointer<CChar>, to mode: mode_t
    ) throws(Errno) {
        let raw = directory.raw
        _ = try call(.fchmodat) { Int(fchmodat(raw, name, mode, 0)) }
    }

    /// utimensat(2) on an O_PATH descriptor (AT_EMPTY_PATH), symbolic links included.
    package static func changeTimes(
        _ descriptor: borrowing Descriptor, access: timespec, modification: timespec
    ) throws(Errno) {
        let raw = descriptor.raw
        let times = [access, modification]
        _ = try call(.utimensat) { Int(utimensat(raw, "", times, Int32(LINUX_AT_EMPTY_PATH))) }
    }

    /// getxattr(2) by a /proc/self/fd path or any other; the last component is followed.
    package static func getAttribute(
        path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>, follow: Bool = true
    ) throws(Errno) -> [UInt8] {
        while true {
            let size = try call(.getxattr) { follow ? getxattr(path, name, nil, 0) : lgetxattr(path, name, nil, 0) }
            var failure: Errno?
            let value = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
                do throws(Errno) {
                    count = try call(.getxattr) {
                        follow
                            ? getxattr(path, name, buffer.baseAddress, size)
                            : lgetxattr(path, name, buffer.baseAddress, size)
                    }
                } catch {
                    failure = error
                    count = 0
                }
            }
            // ERANGE: it grew in between.
            if failure == .range || (size == 0 && failure == nil && !value.isEmpty) { continue }
            if let failure { throw failure }
            return value
        }
    }

    /// The same in one call, for a value that is expected to have at most so many bytes; ERANGE where it has more.
    package static func getAttribute(
        path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>, expecting size: Int, follow: Bool = true
    ) throws(Errno) -> [UInt8] {
        var failure: Errno?
        let value = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            do throws(Errno) {
                count = try call(.getxattr) {
                    follow
                        ? getxattr(path, name, buffer.baseAddress, size)
                        : lgetxattr(path, name, buffer.baseAddress, size)
                }
            } catch {
                failure = error
                count = 0
            }
        }
        if let failure { throw failure }
        return value
    }

    /// setxattr(2).
    package static func setAttribute(
        path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>, _ value: UnsafeRawBufferPointer, flags: Int32,
        follow: Bool = true
    ) throws(Errno) {
        _ = try call(.setxattr) {
            Int(
                follow
                    ? setxattr(path, name, value.baseAddress, value.count, flags)
                    : lsetxattr(path, name, value.baseAddress, value.count, flags))
        }
    }

    /// removexattr(2).
    package static func removeAttribute(
        path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>, follow: Bool = true
    ) throws(Errno) {
        _ = try call(.removexattr) { Int(follow ? removexattr(path, name) : lremovexattr(path, name)) }
    }

    /// listxattr(2): the names, each without its NUL.
    package static func listAttributes(
        path: UnsafePointer<CChar>, follow: Bool = true
    ) throws(Errno) -> [[UInt8]] {
        while true {
            let size = try call(.listxattr) { follow ? listxattr(path, nil, 0) : llistxattr(path, nil, 0) }
            if size == 0 { return [] }
            var names = [UInt8](repeating: 0, count: size + 256)
            let capacity = names.count
            do throws(Errno) {
                let used = try names.withUnsafeMutableBufferPointer { (buffer) throws(Errno) in
                    try buffer.withMemoryRebound(to: CChar.self) { (buffer) throws(Errno) in
                        try call(.listxattr) {
                            follow
                                ? listxattr(path, buffer.baseAddress, capacity)
                                : llistxattr(path, buffer.baseAddress, capacity)
                        }
                    }
                }
                return names[..<used].split(separator: 0).map(Array.init)
            } catch  where error == .range {
                continue
            }
        }
    }

    /// fstatvfs(3).
    package static func statistics(_ descriptor: borrowing Descriptor) throws(Errno) -> statvfs {
        var result = CLinux.statvfs()
        let raw = descriptor.raw
        _ = try call(.statvfs) { Int(fstatvfs(raw, &result)) }
        return result
    }
}
