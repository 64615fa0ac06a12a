import CLinux
import Glibc
import KeyManagement

/// The few file operations behind `EmbeddedLayout`: private modes, atomic writes, fsync.
enum EmbeddedFile {
    static func failure(_ call: String, _ path: String) -> RootError {
        RootError(.failed, "\(call) \(path): \(String(cString: strerror(errno)))")
    }

    static func makeDirectory(_ path: String) throws(RootError) {
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw failure("mkdir", path) }
    }

    /// PINs are kept here: nobody else may own or enter the directory.
    static func requirePrivate(_ path: String) throws(RootError) {
        var status = stat()
        guard stat(path, &status) == 0 else { throw failure("stat", path) }
        guard status.st_mode & S_IFMT == S_IFDIR, status.st_uid == geteuid() else {
            throw RootError(.denied, "\(path) is not a directory of ours")
        }
        guard status.st_mode & 0o077 == 0 || chmod(path, 0o700) == 0 else { throw failure("chmod", path) }
    }

    static func write(_ text: String, to path: String) throws(RootError) { try write(Array(text.utf8), to: path) }

    static func write(_ bytes: [UInt8], to path: String) throws(RootError) {
        let result = bytes.withUnsafeBytes { bytes in
            Result { () throws(RootError) in try write(bytes, to: path) }
        }
        try result.get()
    }

    /// Replaces a file: written beside it, synced, renamed.
    static func write(_ bytes: UnsafeRawBufferPointer, to path: String) throws(RootError) {
        let temporary = path + ".new"
        guard unlink(temporary) == 0 || errno == ENOENT else { throw failure("unlink", temporary) }
        let file = linux_openat(AT_FDCWD, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard file >= 0 else { throw failure("open", temporary) }
        defer { close(file) }
        var done = 0
        while done < bytes.count {
            let count = Glibc.write(file, bytes.baseAddress.map { $0 + done }, bytes.count - done)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure("write", temporary) }
            done += count
        }
        guard fsync(file) == 0 else { throw failure("fsync", temporary) }
        guard rename(temporary, path) == 0 else { throw failure("rename", temporary) }
        try sync(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]))
    }

    static func sync(_ path: String) throws(RootError) {
        let file = linux_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0)
        guard file >= 0 else { throw failure("open", path) }
        defer { close(file) }
        guard fsync(file) == 0 else { throw failure("fsync", path) }
    }

    static func entries(_ path: String) throws(RootError) -> [String] {
        guard let directory = opendir(path) else { throw failure("opendir", path) }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            // The name's own bytes: the record may be shorter than the structure.
            let offset = MemoryLayout<dirent>.offset(of: \.d_name) ?? 0
            let start = UnsafeRawPointer(entry) + offset
            let name = String(cString: start.assumingMemoryBound(to: CChar.self))
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    /// Removes a directory of known depth (staging, tokens, one token); links are removed, never followed.
    static func removeTree(_ path: String, depth: Int = 4) throws(RootError) {
        if unlink(path) == 0 || errno == ENOENT { return }
        guard errno == EISDIR, depth > 0 else { throw failure("unlink", path) }
        for name in try entries(path) { try removeTree("\(path)/\(name)", depth: depth - 1) }
        guard rmdir(path) == 0 else { throw failure("rmdir", path) }
    }
}
