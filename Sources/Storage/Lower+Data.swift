import CLinux

extension Lower {
    /// pread(2) until `count` bytes or the end of the file; returns the bytes read.
    package static func read(
        _ descriptor: borrowing Descriptor, into buffer: UnsafeMutableRawPointer, count: Int, at offset: UInt64
    ) throws(Errno) -> Int {
        let raw = descriptor.raw
        var done = 0
        while done < count {
            var want = count - done
            if try FaultInjection.check(.pread) { want = max(1, want / 2) }
            let result = pread(raw, buffer + done, want, off_t(offset) + off_t(done))
            if result == 0 { break }
            if result < 0 {
                if Errno.current == .interrupted { continue }
                throw .current
            }
            done += result
        }
        return done
    }

    /// A value of a few bytes at `offset`; zero where the file ends before it.
    package static func readValue<T: BitwiseCopyable>(
        _ descriptor: borrowing Descriptor, at offset: UInt64, initial: T
    ) throws(Errno) -> T {
        var value = initial
        try withUnsafeMutablePointer(to: &value) { (pointer) throws(Errno) in
            _ = try read(descriptor, into: pointer, count: MemoryLayout<T>.size, at: offset)
        }
        return value
    }

    /// pwrite(2) until all is written.
    package static func write(
        _ descriptor: borrowing Descriptor, from buffer: UnsafeRawPointer, count: Int, at offset: UInt64
    ) throws(Errno) {
        let raw = descriptor.raw
        var done = 0
        while done < count {
            var want = count - done
            if try FaultInjection.check(.pwrite) { want = max(1, want / 2) }
            let result = pwrite(raw, buffer + done, want, off_t(offset) + off_t(done))
            if result < 0 {
                if Errno.current == .interrupted { continue }
                throw .current
            }
            done += result
        }
    }

    /// ftruncate(2).
    package static func truncate(_ descriptor: borrowing Descriptor, to length: UInt64) throws(Errno) {
        let raw = descriptor.raw
        _ = try call(.ftruncate) { Int(ftruncate(raw, off_t(length))) }
    }

    /// fallocate(2) with its mode bits.
    package static func allocate(
        _ descriptor: borrowing Descriptor, mode: Int32, at offset: UInt64, count: UInt64
    ) throws(Errno) {
        let raw = descriptor.raw
        _ = try call(.fallocate) { Int(fallocate(raw, mode, off_t(offset), off_t(count))) }
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    package static func seek(
        _ descriptor: borrowing Descriptor, to offset: UInt64, whence: Int32
    ) throws(Errno) -> UInt64 {
        let raw = descriptor.raw
        return UInt64(try call(.lseek) { Int(lseek(raw, off_t(offset), whence)) })
    }

    /// fsync(2), or fdatasync(2).
    package static func sync(_ descriptor: borrowing Descriptor, dataOnly: Bool = false) throws(Errno) {
        let raw = descriptor.raw
        if dataOnly {
            _ = try call(.fdatasync) { Int(fdatasync(raw)) }
        } else {
            _ = try call(.fsync) { Int(fsync(raw)) }
        }
    }

    /// syncfs(2): all of the lower file system.
    package static func syncAll(_ descriptor: borrowing Descriptor) throws(Errno) {
        let raw = descriptor.raw
        _ = try call(.syncfs) { Int(syncfs(raw)) }
    }

    /// getdents64(2): raw directory records; 0 at the end.
    package static func readDirectory(
        _ descriptor: borrowing Descriptor, into buffer: UnsafeMutableRawBufferPointer
    ) throws(Errno) -> Int {
        let raw = descriptor.raw
        return try call(.getdents64) { linux_getdents64(raw, buffer.baseAddress, buffer.count) }
    }

    /// Positions a directory at an offset that an earlier record gave.
    package static func seekDirectory(_ descriptor: borrowing Descriptor, to offset: Int64) throws(Errno) {
        let raw = descriptor.raw
        _ = try call(.lseek) { Int(lseek(raw, off_t(offset), SEEK_SET)) == Int(offset) ? 0 : -1 }
    }
}
