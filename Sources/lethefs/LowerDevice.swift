import CLinux
import FoundationEssentials

/// What the kernel says about the block device below a directory.
enum LowerDevice {
    /// Bytes that the device writes as a whole; `nil` where there is no block device, or the kernel does not say.
    static func atomicBytes(below path: String) -> Int? {
        var info = stat()
        guard stat(path, &info) == 0 else { return nil }
        let (major, minor) = (gnu_dev_major(info.st_dev), gnu_dev_minor(info.st_dev))
        // A partition has no queue of its own: its disk's is one up.
        let device = "/sys/dev/block/\(major):\(minor)"
        let sizes = [device, device + "/.."].flatMap { top in
            ["physical_block_size", "atomic_write_unit_max_bytes"].compactMap { number("\(top)/queue/\($0)") }
        }
        return sizes.max()
    }

    private static func number(_ path: String) -> Int? {
        guard let data = FileManager.default.contents(atPath: path) else { return nil }
        return Int(String(decoding: data, as: UTF8.self).prefix { $0.isNumber })
    }
}
