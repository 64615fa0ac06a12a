import CLinux
import FoundationEssentials
import Synchronization

/// A line on a terminal that tells how far a check has come, at most once a second.
final class Progress: Sendable {
    private let state = Mutex<(last: time_t, shown: Bool)>((time(nil), false))

    func show(_ progress: CheckProgress) {
        guard isatty(2) == 1 else { return }
        let now = time(nil)
        let isDue = state.withLock { state in
            guard now != state.last else { return false }
            state = (now, true)
            return true
        }
        if isDue { FileHandle.standardError.write(progress.text) }
    }

    func end() {
        if state.withLock({ $0.shown }) { FileHandle.standardError.write("\n") }
    }
}
