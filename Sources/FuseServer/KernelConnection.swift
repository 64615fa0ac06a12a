import CLinux
import FoundationEssentials

/// The kernel's side of a mount: its device number, by which fusectl and programs' descriptors name it.
package struct KernelConnection: Sendable {
    /// Major and minor as in /proc/self/mountinfo; st_dev of every file in the mount.
    package let major: UInt32
    package let minor: UInt32

    /// From the table of mounts: the mount itself is not touched. `nil` when nothing of ours is mounted there.
    init?(mountPoint: String) {
        guard let data = FileManager.default.contents(atPath: "/proc/self/mountinfo") else { return nil }
        let escaped = mountPoint.replacing("\\", with: "\\134").replacing(" ", with: "\\040")
            .replacing("\t", with: "\\011").replacing("\n", with: "\\012")
        let line = String(decoding: data, as: UTF8.self).split(separator: "\n").last { line in
            let fields = line.split(separator: " ")
            return fields.count > 4 && fields[4] == escaped && line.contains(" fuse.lethefs ")
        }
        guard let numbers = line?.split(separator: " ")[2].split(separator: ":"), numbers.count == 2,
            let major = UInt32(numbers[0]), let minor = UInt32(numbers[1])
        else { return nil }
        self.major = major
        self.minor = minor
    }

    /// st_dev of the mount's files.
    package var device: dev_t { gnu_dev_makedev(major, minor) }

    /// Ends the connection at once: everything that waits for an answer gets an error. Needs fusectl, and its owner or root.
    package func abort() {
        let file = linux_open("/sys/fs/fuse/connections/\(minor)/abort", O_WRONLY | O_CLOEXEC, 0)
        guard file >= 0 else { return }
        defer { close(file) }
        _ = write(file, "1", 1)
    }
}
