import CLinux
import Storage

extension TestVolume {
    /// Names in a directory of the lower tree, `""` for its root, without "." and "..".
    func lowerNames(_ directory: String = "") throws -> [String] {
        guard let stream = opendir(lower + "/" + directory) else { throw Errno.current }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { field in
                field.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }
}

extension TestVolume {
    /// Descriptors of this process that lie in this volume.
    func openDescriptors() throws -> Int { try Self.openDescriptors(in: lower) }

    static func openDescriptors(in lower: String) throws -> Int {
        (0..<4096).count { number in
            var text = [CChar](repeating: 0, count: 4096)
            let count = readlink("/proc/self/fd/\(number)", &text, 4095)
            return count > 0
                && String(decoding: text[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self).hasPrefix(lower)
        }
    }
}

/// How many calls to the lower storage `body` makes on this thread.
func calls(_ body: () throws -> Void) throws -> Int {
    FaultInjection.arm(nth: Int.max, of: Set(LowerCall.allCases), fault: .short)
    do { try body() } catch {
        FaultInjection.disarm()
        throw error
    }
    return FaultInjection.disarm()
}
