import Synchronization
import VolumeFormat

/// Generations of files' headers, kept where whoever writes the lower storage does not write: an older file put in a newer one's
/// place is refused.
///
/// A generation enters the durable list only when the lower storage has been flushed since that header was stored, so that no
/// crash makes a file look older than its entry. What was stored after the last flush is known to this mount alone.
package final class Manifest: Sendable {
    /// What a header's generation is compared with.
    enum Verdict: Equatable {
        case accepted
        /// A later one was seen.
        case older(than: UInt64)
        /// Stored when every file was listed, and not listed: it was removed since.
        case removed
    }

    private struct State {
        var durable: ManifestList
        /// Since `durable` was made; 0 for a file that was removed.
        var changes: [UniqueID: UInt64] = [:]
        /// There is something that is not stored.
        var hasChanges = false
        /// Takes what it sees for what is right.
        var isLearning = false
        /// While a check walks the whole tree: what it has seen.
        var seen: Set<UniqueID>?
    }

    /// So many removed files are remembered after they were taken off the list.
    private static let removedKept = 1 << 20

    // A leaf lock.
    private let state: Mutex<State>

    package init(_ list: ManifestList) { state = Mutex(State(durable: list)) }

    /// Whether a header that was read and authenticated may be what its file's header is now.
    func admit(_ header: FileHeader) -> Verdict {
        state.withLock { state in
            state.seen?.insert(header.file)
            if state.isLearning {
                state.changes[header.file] = header.generation
                state.hasChanges = true
                return .accepted
            }
            guard let known = state.changes[header.file] ?? state.durable.generation(of: header.file) else {
                guard header.epoch > state.durable.coveredEpoch else { return .removed }
                state.changes[header.file] = header.generation
                state.hasChanges = true
                return .accepted
            }
            if known == 0 { return .removed }
            guard header.generation >= known else { return .older(than: known) }
            if header.generation > known {
                state.changes[header.file] = header.generation
                state.hasChanges = true
            }
            return .accepted
        }
    }

    /// A header was stored.
    func note(_ header: FileHeader) {
        state.withLock { state in
            let known = state.changes[header.file]
            // 0: it has lost its last name just now.
            guard known != 0, header.generation > known ?? 0 else { return }
            state.changes[header.file] = header.generation
            state.hasChanges = true
        }
    }

    /// A file has lost its last name.
    func forget(_ file: UniqueID) {
        state.withLock { state in
            state.changes[file] = 0
            state.hasChanges = true
        }
    }

    package var hasChanges: Bool { state.withLock { $0.hasChanges } }

    /// Takes what files say of themselves from now on: a backup was restored.
    package func learn() { state.withLock { $0.isLearning = true } }

    /// A walk over the whole tree begins.
    package func beginWalk() { state.withLock { $0.seen = [] } }

    /// Files that are listed and that the walk has not seen.
    package var unseen: Int {
        state.withLock { state in
            guard let seen = state.seen else { return 0 }
            return state.durable.applying(state.changes).count { !seen.contains($0.file) }
        }
    }

    /// The walk saw everything: what it did not see is no longer listed.
    package func dropUnseen() {
        state.withLock { state in
            guard let seen = state.seen else { return }
            for entry in state.durable.entries where !seen.contains(entry.file) { state.changes[entry.file] = 0 }
        }
    }

    /// What to store once the lower storage is flushed: the list with all changes up to now.
    func snapshot() -> (list: ManifestList, changes: [UniqueID: UInt64]) {
        // Both are copied at no cost; they are put together without the lock, which every store of a header takes.
        let (durable, changes) = state.withLock { ($0.durable, $0.changes) }
        var list = durable
        list.entries = durable.applying(changes)
        return (list, changes)
    }

    /// The list as it is stored.
    var durable: ManifestList { state.withLock { $0.durable } }

    /// A snapshot was stored.
    func stored(_ list: ManifestList, _ changes: [UniqueID: UInt64]) {
        state.withLock { state in
            state.durable = list
            // What was removed is remembered for the life of the mount: its headers may be of this epoch.
            for (file, generation) in changes where generation > 0 && state.changes[file] == generation {
                state.changes[file] = nil
            }
            if state.changes.count > Self.removedKept { state.changes = state.changes.filter { $0.value > 0 } }
            state.hasChanges = state.changes.contains { changes[$0.key] != $0.value }
        }
    }
}
