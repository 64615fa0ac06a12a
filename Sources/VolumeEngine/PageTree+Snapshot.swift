import Synchronization
import VolumeFormat

/// What is taken from a page tree to be stored: see `FileContent.takeTree`.
struct TreeSnapshot {
    /// Everything sealed before it is listed.
    let session: UInt64
    /// Pages of the file.
    let pages: UInt64
    /// The tree as the lower storage has it, and how far it counts.
    let root: TreeRoot
    let storedPages: UInt64
    /// Lowest nodes to be stored.
    let leaves: [UInt64: [TreeEntry]]
    /// It lists all pages that were there.
    let isWhole: Bool
    fileprivate let wasRagged: Bool
}

extension PageTree {
    /// Takes what is to be stored; what is sealed from now on belongs to the next session. Under the content's lock, held alone.
    func takeSnapshot(pages: UInt64) -> TreeSnapshot {
        state.withLock { state in
            // No further than what a reader of the stored header still looks for.
            if session <= max(state.root.top, state.root.floor + 1) { sealing.store(session + 1, ordering: .releasing) }
            var taken: [UInt64: [TreeEntry]] = [:]
            for (index, leaf) in state.leaves where leaf.isPinned || (index == 0 && state.root.depth == 0) {
                taken[index] = leaf.entries
                state.leaves[index]?.isDirty = false
                state.leaves[index]?.isBeingStored = true
            }
            state.cutSince = .max
            let wasRagged = state.isRagged
            let isWhole = !wasRagged || (state.scan.isDone && state.scan.failures == state.failures)
            // A write that fails from now on belongs to the next session.
            if isWhole { state.isRagged = false }
            return TreeSnapshot(
                session: session, pages: pages, root: state.root, storedPages: state.storedPages, leaves: taken,
                isWhole: isWhole, wasRagged: wasRagged)
        }
    }

    /// The nodes could not be stored.
    func putBack(_ snapshot: TreeSnapshot) {
        state.withLock { state in
            for index in snapshot.leaves.keys where state.leaves[index]?.isBeingStored == true {
                state.leaves[index]?.isBeingStored = false
                state.leaves[index]?.isDirty = true
            }
            if snapshot.wasRagged { state.isRagged = true }
        }
    }

    /// The nodes are durable; the header is about to say so. Under the content's lock, held alone.
    func commit(_ snapshot: TreeSnapshot, _ built: BuiltTree) {
        state.withLock { state in
            let floor = snapshot.isWhole ? snapshot.session : state.root.floor
            state.root = TreeRoot(
                floor: floor, top: max(floor, state.root.top), depth: built.depth, entries: built.entries)
            state.storedPages = state.cutSince
            state.uppers = state.uppers.filter { $0.key.level <= built.depth }
            state.uppers.merge(built.uppers) { $1 }
            Self.trim(&state.uppers)
            for index in snapshot.leaves.keys { state.leaves[index]?.isBeingStored = false }
            state.spare = state.leaves.keys.filter { state.isSpare($0) }
            // What the header itself lists is nowhere else.
            if built.depth == 0, state.leaves[0] == nil {
                state.leaves[0] = Leaf(entries: [built.entries.0, built.entries.1])
            }
            evict(&state)
            recount(&state)
            state.headerIsBehind = true
        }
    }

    func headerWasStored() { state.withLock { $0.headerIsBehind = false } }
}

/// A tree whose nodes are stored, and whose root is not yet in the header.
struct BuiltTree {
    var depth = 0
    var entries = (TreeEntry.none, TreeEntry.none)
    var uppers: [PageTree.NodeID: [TreeEntry]] = [:]
    var hasNodes = false
}
