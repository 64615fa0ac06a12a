import ArgumentParser
import CLinux
import ControlPlane
import FoundationEssentials

struct UnmountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unmount",
        abstract: "Unmount a volume; returns when everything is flushed and the daemon is gone.")

    @Argument(help: "The mount point.", completion: .directory)
    var mountPoint: String

    func run() throws {
        try reporting {
            let path = try MountTable.find(mountPoint)
            let daemon = Host().runtime.records().last { $0.mountPoint == path }
            let lower = MountTable.all().last { $0.mountPoint == path }?.source
            try detach(path)
            if let daemon {
                try waitForEnd(of: "the daemon (pid \(daemon.pid))") {
                    ProcessState.isRunning(daemon.pid)
                }
                if let end = Host().runtime.takeEnd(pid: daemon.pid) {
                    throw try JSONDecoder().decode(Failure.self, from: end)
                }
            } else if let lower {
                // Mounted under another LETHEFS_HOME: the lock says when the volume is closed.
                try waitForEnd(of: "the daemon of \(lower)") { Self.isLocked(lower) }
            }
        }
    }

    private func detach(_ path: String) throws {
        if geteuid() == 0 {
            guard umount2(path, 0) != 0 else { return }
            try refuse(path, linux_get_errno())
        }
        var pid: pid_t = 0
        var arguments: [UnsafeMutablePointer<CChar>?] = Self.words(path).map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        guard posix_spawnp(&pid, "fusermount3", nil, nil, &arguments, linux_environment()) == 0 else {
            throw Failure(.mountFailed, "fusermount3 cannot be started", remedy: "install the package fuse3")
        }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, linux_get_errno() == EINTR {}
        if status != 0 { try refuse(path, EBUSY) }
    }

    private static func words(_ path: String) -> [String] { ["fusermount3", "-u", "--", path] }

    private func refuse(_ path: String, _ errno: Int32) throws {
        if errno == EBUSY {
            throw Failure(
                .inUse, "\(path) is in use", meaning: "It stays mounted; nothing is lost.",
                remedy: "fuser -vm \(path)  names the programs")
        }
        throw Failure(.mountFailed, "unmounting \(path): \(String(cString: strerror(errno)))")
    }

    /// The daemon flushes the lower storage before it ends; that can take as long as the storage needs.
    private func waitForEnd(of daemon: String, while isRunning: () -> Bool) throws {
        var waited = 0
        while isRunning() {
            usleep(10_000)
            waited += 1
            if waited == 200 { FileHandle.standardError.write("lethefs: flushing the lower storage…\n") }
            if waited > 60_000 {
                throw Failure(
                    .storage, "\(daemon) is still flushing after ten minutes",
                    meaning: "The mount is gone; what was written is safe when the daemon ends.",
                    remedy: "look whether the lower storage hangs")
            }
        }
    }

    /// Whether a daemon holds the volume. False, too, where we may not look.
    private static func isLocked(_ lower: String) -> Bool {
        let file = linux_open(lower + "/.lethefs/lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0)
        guard file >= 0 else { return false }
        defer { close(file) }
        return flock(file, LOCK_SH | LOCK_NB) != 0
    }
}

/// The kernel's table of mounts.
enum MountTable {
    struct Mount {
        let mountPoint: String
        let source: String
    }

    /// Mounts of this file system in this mount namespace.
    static func all() -> [Mount] {
        guard let data = FileManager.default.contents(atPath: "/proc/self/mounts") else { return [] }
        return String(decoding: data, as: UTF8.self).split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ")
            guard fields.count > 2, fields[2] == "fuse.lethefs" else { return nil }
            return Mount(mountPoint: unescape(fields[1]), source: unescape(fields[0]))
        }
    }

    /// The mount point that a path's text is, or that its parent directory leads to. The mount itself is not touched: it may hang.
    static func named(_ path: String) -> String? {
        let mounts = all()
        var absolute = path
        if !path.hasPrefix("/") { absolute = FileManager.default.currentDirectoryPath + "/" + path }
        while absolute.count > 1, absolute.hasSuffix("/") { absolute.removeLast() }
        if mounts.contains(where: { $0.mountPoint == absolute }) { return absolute }
        guard let name = absolute.split(separator: "/").last, name != "." && name != "..",
            let parent = try? Paths.absolute(String(absolute.dropLast(name.count)))
        else { return nil }
        let resolved = (parent == "/" ? "" : parent) + "/" + name
        return mounts.contains { $0.mountPoint == resolved } ? resolved : nil
    }

    /// The mount point that the operator means; it may hang, so it is not touched.
    static func find(_ path: String) throws -> String {
        if let named = named(path) { return named }
        let resolved = try Paths.absolute(path)
        if all().contains(where: { $0.mountPoint == resolved }) { return resolved }
        throw Failure(.notMounted, "\(resolved) is not a LetheFS mount", remedy: "lethefs status  lists the mounts")
    }

    /// The mount that holds a path, and the path within it; `nil` for a path outside all mounts. The mount is not touched where the
    /// path's text tells.
    static func containing(_ path: String) throws -> (mountPoint: String, inside: String)? {
        let mounts = all().map(\.mountPoint).sorted { $0.utf8.count > $1.utf8.count }
        func split(_ absolute: String) -> (String, String)? {
            guard let mountPoint = mounts.first(where: { Paths.isInside(absolute, $0) }) else { return nil }
            return (mountPoint, String(absolute.dropFirst(mountPoint.count).drop { $0 == "/" }))
        }
        var absolute = path
        if !path.hasPrefix("/") { absolute = FileManager.default.currentDirectoryPath + "/" + path }
        while absolute.count > 1, absolute.hasSuffix("/") { absolute.removeLast() }
        let isPlain = !absolute.split(separator: "/").contains { $0 == "." || $0 == ".." }
        if isPlain, let found = split(absolute) { return found }
        return split(try Paths.absolute(path))
    }

    /// \040 and the like.
    static func unescape(_ field: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(field.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "\\"), rest.count >= 3,
                let value = UInt8(String(decoding: rest.prefix(3), as: UTF8.self), radix: 8)
            {
                bytes.append(value)
                rest = rest.dropFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
