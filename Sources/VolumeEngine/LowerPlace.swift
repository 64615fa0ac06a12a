import CLinux
import Storage

/// A lower directory whose entries the daemon works on of its own: a sweep that seals a link anew, say. What a plain user's own directory
/// is closed to by its mode is done all the same (`Volume.againstMode`); programs' calls the kernel has checked before.
struct LowerPlace {
    let volume: Volume
    let directory: Descriptor

    private static let search: mode_t = 0o100
    private static let change: mode_t = 0o300

    func stat(_ name: UnsafePointer<CChar>) throws(Errno) -> stat {
        try volume.againstMode(directory, needing: Self.search) { () throws(Errno) in try Lower.stat(directory, name) }
    }

    func open(_ name: UnsafePointer<CChar>, flags: Int32) throws(Errno) -> Descriptor {
        try volume.againstMode(directory, needing: Self.search) { () throws(Errno) in
            try Lower.open(directory, name, flags: flags)
        }
    }

    /// Opens a directory to list it; its own mode may keep its owner out, too.
    func openDirectory(_ name: UnsafePointer<CChar>) throws(Errno) -> Descriptor {
        do throws(Errno) { return try open(name, flags: O_RDONLY | O_DIRECTORY) } catch {
            guard error == .access, !volume.isPrivileged else { throw error }
            let node = try open(name, flags: Int32(LINUX_O_PATH) | O_DIRECTORY)
            guard let opened = try volume.openAgainstMode(node, flags: O_RDONLY | O_DIRECTORY) else { throw error }
            return opened
        }
    }

    func readLink(_ name: UnsafePointer<CChar>) throws(Errno) -> [UInt8] {
        try volume.againstMode(directory, needing: Self.search) { () throws(Errno) in
            try Lower.readLink(directory, name)
        }
    }

    func symlink(target: [CChar], _ name: String) throws(Errno) {
        try volume.againstMode(directory, needing: Self.change) { () throws(Errno) in
            try Lower.symlink(target: target, directory, name)
        }
    }

    /// Another name for what `source` in another directory is.
    func link(_ other: Descriptor, _ source: String, to name: String) throws(Errno) {
        try volume.againstMode(directory, needing: Self.change) { () throws(Errno) in
            try Lower.link(other, source, directory, name)
        }
    }

    func exchange(_ one: String, _ other: UnsafePointer<CChar>) throws(Errno) {
        try volume.againstMode(directory, needing: Self.change) { () throws(Errno) in
            try Lower.rename(directory, one, directory, other, flags: UInt32(LINUX_RENAME_EXCHANGE))
        }
    }

    func unlink(_ name: String) throws(Errno) {
        try volume.againstMode(directory, needing: Self.change) { () throws(Errno) in try Lower.unlink(directory, name)
        }
    }
}
