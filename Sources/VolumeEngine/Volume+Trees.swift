import CLinux
import Storage
import Synchronization
import VolumeFormat

/// Page trees are stored from time to time, many at once, so that the flushes are few (FORMAT §12): what is listed was durable before.
extension Volume {
    /// Runs `body` while nobody else stores page trees. Outermost.
    func storingTrees<R>(_ body: () throws(Errno) -> R) throws(Errno) -> R {
        guard let trees else { return try body() }
        return try trees.storing.withLock { (_) throws(Errno) in try body() }
    }

    /// Page trees wait to be stored.
    package var hasUnstoredTrees: Bool { !(trees?.isEmpty ?? true) }

    /// So many that it should not wait.
    package var hasManyUnstoredTrees: Bool { trees?.hasMany ?? false }

    /// Stores every page tree that has changed. What cannot be stored is tried again the next time; the first reason is thrown.
    ///
    /// `isEnding`: an unmount waits, so that large files which a crash left in doubt stay so.
    package func storeTrees(isEnding: Bool = false) throws(Errno) {
        guard let trees else { return }
        if isEnding { trees.isEnding.store(true, ordering: .releasing) }
        var failure: Errno?
        do throws(Errno) { try scanTrees(trees) } catch { failure = error }
        do throws(Errno) {
            try storingTrees { () throws(Errno) in
                let items = trees.all
                for from in stride(from: 0, to: items.count, by: Self.treesAtOnce) {
                    let some = items[from..<min(from + Self.treesAtOnce, items.count)]
                    do throws(Errno) { try store(Array(some), trees) } catch { failure = failure ?? error }
                }
            }
        } catch { failure = failure ?? error }
        if let failure { throw failure }
    }

    /// Looks at the pages of files that a crash left in doubt, for some seconds. No tree waits for it.
    private func scanTrees(_ trees: TreeTable) throws(Errno) {
        try trees.scanning.withLock { (_) throws(Errno) in
            let start = SweepControl.nanoseconds
            var failure: Errno?
            for item in trees.all where item.tree.scanFrom != nil {
                do throws(Errno) {
                    let content = try openContent(item.inode, forWriting: false)
                    defer { closeContent(content) }
                    guard content.tree === item.tree else { continue }
                    try content.scanTree {
                        let seconds =
                            trees.isEnding.load(ordering: .acquiring) ? Self.scanSecondsAtTheEnd : Self.scanSeconds
                        return SweepControl.nanoseconds - start < seconds * 1_000_000_000
                    }
                } catch {
                    if error != .stale, error != .noEntry { failure = failure ?? error }
                }
            }
            if let failure { throw failure }
        }
    }

    private static let (scanSeconds, scanSecondsAtTheEnd): (UInt64, UInt64) = (20, 5)

    /// A flush failed. What was written before may be lost although it can be read still, and the lower storage will not say so again;
    /// `lost`: whose pages these may be.
    func noteLostFlush(_ lost: [PageTree]) {
        for tree in lost { tree.getStuck() }
        lostFlush.store(true, ordering: .sequentiallyConsistent)
        // The next mount takes what it finds, as after a crash.
        markDirty()
    }

    private static let treesAtOnce = 256

    /// A file has lost its last name: `file`, where it is known to have nodes.
    func forgetTree(_ info: stat, _ file: UniqueID?, isKept: Bool) {
        guard let trees else { return }
        let item = trees.leave(InodeKey(info))
        // Nodes that could not be kept for those who have it open stay where they are; a check removes them.
        if isKept {
            for file in Set([file, item?.tree.file].compactMap { $0 }) { try? Lower.unlink(trees.directory, "\(file)") }
        }
        guard let item else { return }
        // A rename that replaces it holds place gates, which come after: where the gate is not to be had at once, the last close drops it, or
        // the next storing of trees.
        _ = gate(item.inode).lock.withLockIfAvailable { _ in
            if item.inode.state.withLock({ $0.content == nil }) { trees.drop(item, in: table) }
        }
    }

    /// The last handle of a file goes. The caller holds the gate.
    func closeTree(_ content: FileContent) {
        guard let trees, let tree = content.tree, tree.isGone, let item = trees.item(of: tree, content.inode.key) else {
            return
        }
        trees.drop(item, in: table)
    }

    /// Before the last name goes: programs that know the file go on reading it. False when its nodes cannot be kept.
    func keepTreeFile(_ info: stat, _ file: UniqueID) -> Bool {
        guard let trees, let inode = table.find(InodeKey(info)) else { return true }
        defer { table.release(inode) }
        do throws(Errno) {
            let nodes = try Lower.open(trees.directory, "\(file)", flags: O_RDWR | O_NONBLOCK | O_NOCTTY)
            inode.state.withLock { $0.treeFile = nodes }
            return true
        } catch { return error == .noEntry }
    }

    private struct Work {
        let item: TreeTable.Item
        let content: FileContent
        var snapshot: TreeSnapshot?
        var built: BuiltTree?
    }

    private func store(_ items: [TreeTable.Item], _ trees: TreeTable) throws(Errno) {
        var failure: Errno?
        var works: [Work] = []
        defer { for work in works { closeContent(work.content) } }
        for item in items where !item.tree.isStuck {
            do throws(Errno) {
                let content = try openContent(item.inode, forWriting: false)
                works.append(Work(item: item, content: content))
                // Another file has its number now, or it was stored by somebody else.
                guard content.tree === item.tree else {
                    trees.drop(item, in: table)
                    continue
                }
                works[works.count - 1].snapshot = try take(item, content, trees)
            } catch {
                // It lost its name meanwhile.
                if error == .stale || error == .noEntry, !table.holds(item.inode) {
                    trees.drop(item, in: table)
                    continue
                }
                failure = failure ?? error
            }
        }
        do throws(Errno) {
            if works.contains(where: { $0.snapshot != nil }) {
                try flush(trees)
            }
            for index in works.indices {
                guard let snapshot = works[index].snapshot else { continue }
                let content = works[index].content
                do throws(Errno) {
                    works[index].built = try content.lock.reading { () throws(Errno) in try content.buildTree(snapshot)
                    }
                } catch { failure = failure ?? error }
            }
            if works.contains(where: { $0.built?.hasNodes ?? false }) { try flush(trees) }
        } catch {
            for work in works { if let snapshot = work.snapshot { work.item.tree.putBack(snapshot) } }
            throw error
        }
        for work in works {
            do throws(Errno) { try commit(work, trees) } catch { failure = failure ?? error }
        }
        if let failure { throw failure }
    }

    private func take(_ item: TreeTable.Item, _ content: FileContent, _ trees: TreeTable) throws(Errno) -> TreeSnapshot?
    {
        try content.ensureKeys()
        return try gate(content.inode).lock.withLock { (_) throws(Errno) in
            if try content.lowerAttributes().st_nlink == 0 {
                item.tree.leave()
                // Nobody but this has it open.
                if content.openCount == 1 {
                    trees.drop(item, in: table)
                    return nil
                }
            }
            return try content.lock.writing { () throws(Errno) in try content.takeTree() }
        }
    }

    private func flush(_ trees: TreeTable) throws(Errno) {
        do throws(Errno) { try Lower.syncAll(trees.flushed) } catch {
            noteLostFlush(trees.all.map(\.tree))
            throw error
        }
    }

    private func commit(_ work: Work, _ trees: TreeTable) throws(Errno) {
        let (content, tree) = (work.content, work.item.tree)
        try gate(content.inode).lock.withLock { (_) throws(Errno) in
            try content.lock.writing { () throws(Errno) in
                if let snapshot = work.snapshot {
                    guard let built = work.built else { return tree.putBack(snapshot) }
                    do throws(Errno) { try content.commitTree(snapshot, built) } catch {
                        tree.putBack(snapshot)
                        throw error
                    }
                }
                // One that is stuck stays, so that nobody begins anew with it.
                if content.tree === tree, !tree.needsStore, !tree.isStuck { trees.drop(work.item, in: table) }
            }
        }
    }
}
