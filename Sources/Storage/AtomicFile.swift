import CLinux

/// Whole small files that are replaced atomically and durably.
package enum AtomicFile {
    /// Reads a file of at most `limit` bytes; EFBIG beyond it.
    package static func read(_ directory: borrowing Descriptor, _ name: String, limit: Int) throws(Errno) -> [UInt8] {
        let file = try Lower.open(directory, name, flags: O_RDONLY | O_NONBLOCK | O_NOCTTY, for: .daemon)
        let info = try Lower.stat(file)
        guard info.st_mode & mode_t(S_IFMT) == mode_t(S_IFREG) else { throw .invalid }
        guard info.st_size <= limit else { throw .fileTooBig }
        var bytes = [UInt8](repeating: 0, count: limit + 1)
        let count = try bytes.withUnsafeMutableBufferPointer { (buffer) throws(Errno) in
            guard let start = buffer.baseAddress else { return 0 }
            return try Lower.read(file, into: start, count: buffer.count, at: 0)
        }
        guard count <= limit else { throw .fileTooBig }
        return Array(bytes[..<count])
    }

    /// Writes a new file beside the old one, flushes it, renames it over, and flushes the directory.
    package static func replace(
        _ directory: borrowing Descriptor, _ name: String, with bytes: [UInt8], mode: mode_t = 0o600
    ) throws(Errno) {
        let temporary = name + ".new"
        do { try Lower.unlink(directory, temporary) } catch { guard error == .noEntry else { throw error } }
        let file = try Lower.open(directory, temporary, flags: O_WRONLY | O_CREAT | O_EXCL, mode: mode, for: .daemon)
        try bytes.withUnsafeBufferPointer { (buffer) throws(Errno) in
            guard let start = buffer.baseAddress else { return }
            try Lower.write(file, from: start, count: buffer.count, at: 0)
        }
        try Lower.sync(file)
        try Lower.rename(directory, temporary, directory, name)
        let reopened = try Lower.open(directory, ".", flags: O_RDONLY | O_DIRECTORY, for: .daemon)
        try Lower.sync(reopened)
    }
}
