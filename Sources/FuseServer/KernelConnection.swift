import CLinux
import FoundationEssentials

/// The kernel's side of a mount: its device number, by which fusectl and programs' descriptors name it.
package struct KernelConnection: Sendable {
    /// Major and minor as in /proc/self/mountinfo; st_dev of every file in the mount.
    package let major: UInt32
    package let minor: UInt32

    /// From the table of mounts: the mount itself is not touched. `nil` when nothing of ours is mounted there.
    init?(mountPoint: String) {
        guard let fields = Self.mounts(at: mountPoint).last(where: { $0.contains(" fuse.lethefs ") }),
            let numbers = Self.numbers(fields)
        else { return nil }
        (major, minor) = numbers
    }

    /// Whether a path leads to this mount, and to none that was made over it, or since it was detached.
    func isReached(by mountPoint: String) -> Bool {
        guard let numbers = Self.mounts(at: mountPoint).last.flatMap(Self.numbers) else { return false }
        return numbers == (major, minor)
    }

    /// Lines of the table, the one on top last.
    private static func mounts(at mountPoint: String) -> [Substring] {
        guard let data = FileManager.default.contents(atPath: "/proc/self/mountinfo") else { return [] }
        let escaped = mountPoint.replacing("\\", with: "\\134").replacing(" ", with: "\\040")
            .replacing("\t", with: "\\011").replacing("\n", with: "\\012")
        return String(decoding: data, as: UTF8.self).split(separator: "\n").filter { line in
            let fields = line.split(separator: " ")
            return fields.count > 4 && fields[4] == escaped
        }
    }

    private static func numbers(_ line: Substring) -> (UInt32, UInt32)? {
        let numbers = line.split(separator: " ")[2].split(separator: ":").compactMap { UInt32($0) }
        return numbers.count == 2 ? (numbers[0], numbers[1]) : nil
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
