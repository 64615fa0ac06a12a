import CLinux
import FoundationEssentials

/// Whether a process still runs.
package enum ProcessState {
    /// Of /proc/ID/stat: num_threads, the twentieth field, behind the state, the third.
    private static let threads = 17
    /// starttime, the twenty-second.
    private static let start = 19

    /// False for one that has ended and only waits for its parent to notice. Not for one whose first thread has ended before the others:
    /// it shows as ended, too, and they still have its descriptors.
    package static func isRunning(_ pid: Int32) -> Bool {
        guard kill(pid, 0) == 0 || linux_get_errno() == EPERM else { return false }
        let fields = fields(pid)
        guard let state = fields.first, fields.count > Self.threads else { return false }
        return (state != "Z" && state != "X") || (Int(fields[Self.threads]) ?? 0) > 1
    }

    /// When it was started, in ticks since the boot: tells it from another one that got its number later. `nil` for one that does not run.
    package static func start(_ pid: Int32) -> UInt64? {
        guard pid > 0, isRunning(pid) else { return nil }
        let fields = fields(pid)
        return fields.count > Self.start ? UInt64(fields[Self.start]) : nil
    }

    /// Of /proc/ID/stat, from the state on; none where there is no such process.
    private static func fields(_ pid: Int32) -> [Substring] {
        guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/stat") else { return [] }
        // "pid (name) state …": the name may hold anything, parentheses too.
        return String(decoding: data, as: UTF8.self).split(separator: ")").last?.split(separator: " ") ?? []
    }
}
