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
        try storingTrees { () throws(Errno) in
            var failure: Errno?
            let items = trees.all
            var from = 0
            while from < items.count {
                let to = min(from + Self.treesAtOnce, items.count)
                do throws(Errno) { try store(Array(items[from..<to]), trees) } catch { failure = failure ?? error }
                from = to
            }
            if let failure { throw failure }
        }
    }

    private static let treesAtOnce = 256

    /// A file has lost its last name: `file`, where it is known to have nodes.
    func forgetTree(_ info: stat, _ file: UniqueID?) {
        guard let trees else { return }
        let key = InodeKey(info)
        trees.forget(key, in: table)
        guard let file else { return }
        try? Lower.unlink(trees.directory, "\(file)")
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
        for item in items {
            do throws(Errno) {
                let content = try openContent(item.inode, forWriting: false)
                works.append(Work(item: item, content: content))
                // Another file has its number now, or it was stored by somebody else.
                guard content.tree === item.tree else {
                    trees.drop(item, in: table)
                    continue
                }
                works[works.count - 1].snapshot = try take(content, trees)
            } catch {
                // It lost its name meanwhile.
                if error == .stale || error == .noEntry {
                    trees.forget(item.inode.key, in: table)
                    continue
                }
                failure = failure ?? error
            }
        }
        do throws(Errno) {
            if works.contains(where: { $0.snapshot != nil }) { try Lower.syncAll(lowerRoot) }
            for index in works.indices {
                guard let snapshot = works[index].snapshot else { continue }
                let content = works[index].content
                do throws(Errno) {
                    works[index].built = try content.lock.reading { () throws(Errno) in try content.buildTree(snapshot)
                    }
                } catch { failure = failure ?? error }
            }
            if works.contains(where: { $0.built?.hasNodes ?? false }) { try Lower.syncAll(lowerRoot) }
        } catch {
            for work in works { if let snapshot = work.snapshot { work.item.tree.putBack(snapshot) } }
            throw error
        }
        for work in works {
            do throws(Errno) { try commit(work, trees) } catch { failure = failure ?? error }
        }
        if let failure { throw failure }
    }

    private func take(_ content: FileContent, _ trees: TreeTable) throws(Errno) -> TreeSnapshot? {
        try content.ensureKeys()
        guard try content.lowerAttributes().st_nlink > 0 else {
            trees.forget(content.inode.key, in: table)
            return nil
        }
        var scanned: UInt64?
        if let doubts = content.tree?.doubts,
            try content.scanTree({ trees.isEnding.load(ordering: .acquiring) })
        {
            scanned = doubts
        }
        return try content.lock.writing { () throws(Errno) in try content.takeTree(scanned: scanned) }
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
                if content.tree === tree, !tree.needsStore { trees.drop(work.item, in: table) }
            }
        }
    }
}
