import CLinux
import FoundationEssentials

/// Whether a process still runs.
package enum ProcessState {
    /// Of /proc/ID/stat: num_threads, the twentieth field, behind the state, the third.
    private static let threads = 17

    /// False for one that has ended and only waits for its parent to notice. Not for one whose first thread has ended before the others:
    /// it shows as ended, too, and they still have its descriptors.
    package static func isRunning(_ pid: Int32) -> Bool {
        guard kill(pid, 0) == 0 || linux_get_errno() == EPERM else { return false }
        guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/stat") else { return false }
        // "pid (name) state …": the name may hold anything, parentheses too.
        let text = String(decoding: data, as: UTF8.self)
        let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
        guard let state = fields.first, fields.count > Self.threads else { return false }
        return (state != "Z" && state != "X") || (Int(fields[Self.threads]) ?? 0) > 1
    }
}
