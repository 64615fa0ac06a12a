import CLinux
import FoundationEssentials

/// Whether a process still runs.
package enum ProcessState {
    /// False for one that has ended and only waits for its parent to notice.
    package static func isRunning(_ pid: Int32) -> Bool {
        guard kill(pid, 0) == 0 || linux_get_errno() == EPERM else { return false }
        guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/stat") else { return false }
        // "pid (name) state …": the name may hold anything, parentheses too.
        let text = String(decoding: data, as: UTF8.self)
        let state = text.split(separator: ")").last?.split(separator: " ").first
        return state != "Z" && state != "X"
    }
}
