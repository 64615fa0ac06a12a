import CLinux
import Storage
import VolumeEngine
import VolumeFormat

/// A program's view of a zone, held by the daemon for the time of a revocation: what it could read before, it must not read after.
///
/// It goes through the mount as any program does, so each step has a deadline: the mount's threads may be busy.
package struct Canary: Sendable {
    let descriptor: Int32
    private let isDirectory: Bool
    package static let openSeconds = 0.5
    private static let checkSeconds = 2.0

    /// What came of looking for one.
    package enum Opening: Sendable {
        case ready(Canary)
        /// The zone has nothing that a program could read, or the path does not lead to the mount any more.
        case nothing
        /// It was not known in time: there may be something.
        case late
        /// Nobody looked: it is not known which files are the mount's.
        case unsought
    }

    package init(descriptor: Int32, isDirectory: Bool) {
        self.descriptor = descriptor
        self.isDirectory = isDirectory
    }

    /// Opens a file or directory of a zone by its path in the mount, and reads of it, so that the kernel has it cached. Looking for one
    /// waits for files' locks and the lower storage, too.
    static func open(of zone: ZoneID, _ volume: Volume, in mountPoint: String, device: dev_t?) -> Opening {
        guard let device else { return .unsought }
        return open {
            let inodes = volume.retainInodes(of: zone)
            defer { if !PlainThread.detach({ volume.release(inodes) }) { volume.release(inodes) } }
            guard let sample = volume.sample(inodes) else { return Canary(descriptor: -1, isDirectory: false) }
            let path = Array(mountPoint.utf8) + [UInt8(ascii: "/")] + sample.path
            return Canary(
                descriptor: open(path, isDirectory: sample.isDirectory, device: device),
                isDirectory: sample.isDirectory)
        }
    }

    /// Has `find` open one, and waits so long: its descriptor is -1 where there is none.
    package static func open(seconds: Double = openSeconds, _ find: @escaping @Sendable () -> Canary) -> Opening {
        let opened = Deadline.run(
            seconds: seconds, late: { if $0.descriptor >= 0 { close($0.descriptor) } }, find)
        guard let opened else { return .late }
        return opened.descriptor >= 0 ? .ready(opened) : .nothing
    }

    /// A descriptor through which something was read; -1 otherwise.
    private static func open(_ path: [UInt8], isDirectory: Bool, device: dev_t) -> Int32 {
        let text = path.map(CChar.init(bitPattern:)) + [0]
        let flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (isDirectory ? O_DIRECTORY : 0)
        let descriptor = linux_open(text, flags, 0)
        guard descriptor >= 0 else { return -1 }
        var info = stat()
        guard fstat(descriptor, &info) == 0, info.st_dev == device else {
            close(descriptor)
            return -1
        }
        if !isDirectory {
            // The end of an empty file, or one that another took the place of, shows nothing, neither now nor afterwards.
            var byte: UInt8 = 0
            guard pread(descriptor, &byte, 1, 0) == 1 else {
                close(descriptor)
                return -1
            }
        }
        return descriptor
    }

    /// What reading through the old handle gives now: the errno, 0 when it still reads, -1 when there is nothing to read any more, `nil`
    /// when nothing came back in time. Closes it.
    fileprivate func check() -> Int32? {
        let descriptor = descriptor
        let isDirectory = isDirectory
        return Deadline.run(seconds: Self.checkSeconds) {
            defer { close(descriptor) }
            if isDirectory {
                var buffer = [UInt8](repeating: 0, count: 4096)
                lseek(descriptor, 0, SEEK_SET)
                return linux_getdents64(descriptor, &buffer, buffer.count) >= 0 ? 0 : linux_get_errno()
            }
            var byte: UInt8 = 0
            let count = pread(descriptor, &byte, 1, 0)
            // A program has emptied the file meanwhile.
            return count > 0 ? 0 : count == 0 ? -1 : linux_get_errno()
        }
    }
}

extension Canary.Opening {
    /// Reads through it, and puts into words what that gave.
    package func check() -> String {
        switch self {
        case .nothing: return "nothing to read"
        case .late: return "not found in time"
        case .unsought: return "not looked for"
        case .ready(let canary):
            switch canary.check() {
            case nil: return "no answer"
            case 0: return "READ"
            case -1: return "nothing to read"
            default: return "refused"
            }
        }
    }
}
