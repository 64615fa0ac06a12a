import CLinux
import FoundationEssentials
import Glibc
import Storage

/// How much of a mount the kernel's page cache reads ahead, and holds unwritten: attributes of its backing device in sysfs
/// (Documentation/ABI/testing/sysfs-class-bdi), which are root's to change.
///
/// What FUSE mounts begin with suits a daemon that is slow, or not trusted: 128 KiB ahead, and a hundredth of what all may leave unwritten.
/// Neither can be asked for when the protocol is agreed on.
struct PageCacheBounds {
    /// Of a file that is read in order: several requests are opened side by side then. More would cost those who read a mapping here and
    /// there: the kernel reads as much around each of the first hundred pages that it misses.
    static let readAheadKiB: UInt64 = 512
    /// Of all files, before programs that write have to wait; a thirty-second of the memory on small machines. The kernel keeps it as the
    /// share that it is now of what all may leave unwritten. More would have it begin later, and a revocation store more before it is done.
    static let unwrittenBytes: UInt64 = 64 << 20

    private let directory: String

    init(_ connection: KernelConnection) { directory = "/sys/class/bdi/\(connection.major):\(connection.minor)/" }

    /// Raises both; one that could not be raised stays as the kernel had it, and comes back with the reason.
    ///
    /// After INIT: its answer takes the readahead back to what the kernel offered.
    func raise() -> [(attribute: String, error: Errno)] {
        let memory = UInt64(max(0, sysconf(Int32(_SC_PHYS_PAGES)))) * UInt64(max(0, sysconf(Int32(_SC_PAGESIZE))))
        return [
            ("read_ahead_kb", Self.readAheadKiB), ("max_bytes", min(Self.unwrittenBytes, memory / 32)),
        ].compactMap { (attribute, value) in
            raise(attribute, to: value).map { (attribute, $0) }
        }
    }

    private func raise(_ attribute: String, to value: UInt64) -> Errno? {
        let path = directory + attribute
        if let data = FileManager.default.contents(atPath: path),
            let now = UInt64(String(decoding: data, as: UTF8.self).filter { !$0.isWhitespace }), now >= value
        {
            return nil
        }
        let file = linux_open(path, O_WRONLY | O_CLOEXEC, 0)
        guard file >= 0 else { return .current }
        defer { close(file) }
        let text = "\(value)"
        return write(file, text, text.utf8.count) == text.utf8.count ? nil : .current
    }
}
