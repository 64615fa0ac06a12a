import CLinux
import FoundationEssentials

/// Paths that the operator gave.
enum Paths {
    /// The absolute path without links; of one that does not exist yet, its parent's and its name.
    static func absolute(_ path: String, mustExist: Bool = true) throws -> String {
        if let resolved = realpath(path, nil) {
            defer { free(resolved) }
            return String(cString: resolved)
        }
        let reason = linux_get_errno()
        guard !mustExist, reason == ENOENT else {
            throw Failure(.invalid, "\(path): \(String(cString: strerror(reason)))")
        }
        var trimmed = path
        while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
        let parts = trimmed.split(separator: "/", omittingEmptySubsequences: true)
        guard let name = parts.last else { throw Failure(.invalid, "\(path): no such directory") }
        let parent = trimmed.dropLast(name.count)
        return try absolute(parent.isEmpty ? "." : String(parent)) + "/" + name
    }

    /// True when `path` is `directory` or lies below it.
    static func isInside(_ path: String, _ directory: String) -> Bool {
        path == directory || path.hasPrefix(directory == "/" ? "/" : directory + "/")
    }

    /// Checks a mount point: an empty directory that does not overlap with the lower one.
    static func checkMountPoint(_ mountPoint: String, lower: String) throws {
        if MountTable.all().contains(where: { $0.mountPoint == mountPoint }) {
            throw Failure(
                .mountFailed, "a LetheFS volume is mounted on \(mountPoint) already", meaning: "It stays as it is.",
                remedy: "lethefs status \(mountPoint)")
        }
        if isInside(mountPoint, lower) {
            throw Failure(
                .mountFailed, "the mount point \(mountPoint) lies inside the lower directory \(lower)",
                meaning: "What is written through the mount would appear in it again.", remedy: "mount it elsewhere")
        }
        if isInside(lower, mountPoint) {
            throw Failure(
                .mountFailed, "the lower directory \(lower) lies below the mount point \(mountPoint)",
                meaning: "The mount would hide it.", remedy: "mount it elsewhere")
        }
        var info = stat()
        guard stat(mountPoint, &info) == 0, info.st_mode & mode_t(S_IFMT) == mode_t(S_IFDIR) else {
            throw Failure(
                .mountFailed, "the mount point \(mountPoint) is not a directory", remedy: "mkdir \(mountPoint)")
        }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: mountPoint)) ?? []
        if !names.isEmpty {
            throw Failure(
                .mountFailed, "the mount point \(mountPoint) is not empty",
                meaning: "The mount would hide what is in it.",
                remedy: "choose an empty directory")
        }
    }
}
