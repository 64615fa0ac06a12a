import CLinux

/// Calls to the lower storage: typed throws, EINTR retried, and the fault seam before each.
package enum Lower {
    @inline(__always)
    static func call(_ name: LowerCall, _ body: () -> Int) throws(Errno) -> Int {
        _ = try FaultInjection.check(name)
        while true {
            let result = body()
            if result >= 0 { return result }
            let errno = Errno.current
            if errno != .interrupted { throw errno }
        }
    }

    /// openat(2); O_CLOEXEC and O_NOFOLLOW are added. EMFILE where programs have all that they may.
    package static func open(
        _ directory: borrowing Descriptor, _ path: UnsafePointer<CChar>, flags: Int32, mode: mode_t = 0,
        for purpose: DescriptorBudget.Purpose = .programs
    ) throws(Errno) -> Descriptor {
        try DescriptorBudget.check(purpose)
        return Descriptor(owning: Int32(try openRaw(directory.raw, path, flags: flags | O_NOFOLLOW, mode: mode)))
    }

    /// Opens by a path that the operator gave: follows links.
    package static func open(
        path: String, flags: Int32, mode: mode_t = 0, for purpose: DescriptorBudget.Purpose = .programs
    ) throws(Errno) -> Descriptor {
        try DescriptorBudget.check(purpose)
        return Descriptor(owning: Int32(try openRaw(AT_FDCWD, path, flags: flags, mode: mode)))
    }

    private static func openRaw(
        _ directory: Int32, _ path: UnsafePointer<CChar>, flags: Int32, mode: mode_t
    ) throws(Errno) -> Int {
        try call(.openat) { Int(linux_openat(directory, path, flags | O_CLOEXEC, mode)) }
    }

    /// fstat(2), also on O_PATH descriptors.
    package static func stat(_ descriptor: borrowing Descriptor) throws(Errno) -> stat {
        var result = CLinux.stat()
        let raw = descriptor.raw
        _ = try call(.fstat) { Int(fstat(raw, &result)) }
        return result
    }

    /// fstatat(2) without following a link.
    package static func stat(
        _ directory: borrowing Descriptor, _ name: UnsafePointer<CChar>
    ) throws(Errno) -> stat {
        var result = CLinux.stat()
        let raw = directory.raw
        _ = try call(.fstat) { Int(fstatat(raw, name, &result, AT_SYMLINK_NOFOLLOW)) }
        return result
    }

    /// mkdirat(2).
    package static func makeDirectory(
        _ directory: borrowing Descriptor, _ name: UnsafePointer<CChar>, mode: mode_t
    ) throws(Errno) {
        let raw = directory.raw
        _ = try call(.mkdirat) { Int(mkdirat(raw, name, mode)) }
    }

    /// unlinkat(2).
    package static func unlink(
        _ directory: borrowing Descriptor, _ name: UnsafePointer<CChar>, isDirectory: Bool = false
    ) throws(Errno) {
        let raw = directory.raw
        _ = try call(.unlinkat) { Int(unlinkat(raw, name, isDirectory ? AT_REMOVEDIR : 0)) }
    }

    /// renameat2(2).
    package static func rename(
        _ from: borrowing Descriptor, _ oldName: UnsafePointer<CChar>, _ to: borrowing Descriptor,
        _ newName: UnsafePointer<CChar>, flags: UInt32 = 0
    ) throws(Errno) {
        let (old, new) = (from.raw, to.raw)
        _ = try call(.renameat2) { Int(linux_renameat2(old, oldName, new, newName, flags)) }
    }

    /// linkat(2) of the object behind a /proc/self/fd path or a name; the last component of `oldName` is followed when asked.
    package static func link(
        _ from: borrowing Descriptor, _ oldName: UnsafePointer<CChar>, _ to: borrowing Descriptor,
        _ newName: UnsafePointer<CChar>, follow: Bool = false
    ) throws(Errno) {
        let (old, new) = (from.raw, to.raw)
        _ = try call(.linkat) { Int(linkat(old, oldName, new, newName, follow ? AT_SYMLINK_FOLLOW : 0)) }
    }

    /// symlinkat(2).
    package static func symlink(
        target: UnsafePointer<CChar>, _ directory: borrowing Descriptor, _ name: UnsafePointer<CChar>
    ) throws(Errno) {
        let raw = directory.raw
        _ = try call(.symlinkat) { Int(symlinkat(target, raw, name)) }
    }

    /// readlinkat(2); at most 4095 bytes.
    package static func readLink(
        _ directory: borrowing Descriptor, _ name: UnsafePointer<CChar>
    ) throws(Errno) -> [UInt8] {
        let raw = directory.raw
        var failure: Errno?
        let target = [UInt8](unsafeUninitializedCapacity: 4096) { buffer, count in
            do throws(Errno) {
                count = try call(.readlinkat) {
                    guard let start = buffer.baseAddress else { return 0 }
                    return start.withMemoryRebound(to: CChar.self, capacity: 4096) { readlinkat(raw, name, $0, 4096) }
                }
            } catch {
                failure = error
                count = 0
            }
        }
        if let failure { throw failure }
        return target
    }

    /// mknodat(2).
    package static func makeNode(
        _ directory: borrowing Descriptor, _ name: UnsafePointer<CChar>, mode: mode_t, device: dev_t
    ) throws(Errno) {
        let raw = directory.raw
        _ = try call(.mknodat) { Int(mknodat(raw, name, mode, device)) }
    }
}
