import CLinux
import FoundationEssentials

/// Where daemons leave word of themselves: one `<pid>.json` and one `<pid>.sock` each; and at their end `<pid>.end`, where that was not in order.
package struct RuntimeDirectory: Sendable {
    package let path: String

    package init(path: String) { self.path = path }

    /// What a daemon says of its mount while it lives.
    package struct Record: Codable, Sendable, Equatable {
        package var pid: Int32
        package var volume: String
        package var lower: String
        package var mountPoint: String
        package var log: String?

        package init(pid: Int32, volume: String, lower: String, mountPoint: String, log: String?) {
            self.pid = pid
            self.volume = volume
            self.lower = lower
            self.mountPoint = mountPoint
            self.log = log
        }
    }

    package func socketPath(pid: Int32) -> String { "\(path)/\(pid).sock" }
    private func recordPath(pid: Int32) -> String { "\(path)/\(pid).json" }

    /// Makes the directory, readable by its owner alone. False when it belongs to somebody else, or cannot be made.
    package func prepare() -> Bool {
        try? FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        var info = stat()
        return lstat(path, &info) == 0 && info.st_mode & mode_t(S_IFMT) == mode_t(S_IFDIR) && info.st_uid == geteuid()
            && info.st_mode & 0o077 == 0
    }

    package func write(_ record: Record) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        try encoder.encode(record).write(to: URL(filePath: recordPath(pid: record.pid)), options: .atomic)
    }

    private func endPath(pid: Int32) -> String { "\(path)/\(pid).end" }

    /// What went wrong at a daemon's end, for whoever waits for it. `nil` takes back what another of that number has left.
    package func writeEnd(pid: Int32, _ what: Data?) {
        unlink(endPath(pid: pid))
        // Nobody but the log can be told where this fails.
        if let what { try? what.write(to: URL(filePath: endPath(pid: pid)), options: .atomic) }
    }

    /// What the daemon has left; it is taken away.
    package func takeEnd(pid: Int32) -> Data? {
        defer { unlink(endPath(pid: pid)) }
        return FileManager.default.contents(atPath: endPath(pid: pid))
    }

    package func remove(pid: Int32) {
        unlink(recordPath(pid: pid))
        unlink(socketPath(pid: pid))
    }

    /// The daemons that live. What dead ones left behind is removed on the way.
    package func records() -> [Record] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        return names.compactMap { name in
            guard name.hasSuffix(".json"), let pid = Int32(name.dropLast(5)) else { return nil }
            guard ProcessState.isRunning(pid) else {
                remove(pid: pid)
                return nil
            }
            guard let data = FileManager.default.contents(atPath: recordPath(pid: pid)) else { return nil }
            return try? JSONDecoder().decode(Record.self, from: data)
        }
    }
}
