import Storage
import VolumeFormat

/// A file's four slots are taken, and it needs a fifth DEK.
extension FileContent {
    /// Runs `body` with `lock` held alone. Where a fifth DEK would be needed to seal `pages`, the others have gone before. No lock is held.
    @inline(__always)
    func changing(sealing pages: Int, _ body: () throws(Errno) -> Void) throws(Errno) {
        while try lock.writing({ () throws(Errno) -> Bool in
            if needsRoom(sealing: pages) { return true }
            try body()
            return false
        }) {
            do throws(Errno) { try makeRoom() } catch {
                let isNeeded = lock.writing { () -> Bool in
                    roomIsRefused = true
                    return isUsedUp
                }
                if isNeeded { throw error }
            }
        }
    }

    /// SP 800-38D §8.3: under one key, with random IVs.
    private static let mostInvocations: UInt64 = 1 << 32

    /// The current DEK may seal no more: another one has to take over.
    private var isUsedUp: Bool {
        header.slots[header.currentIndex].invocationBound >= volume.options.invocationLimit
    }

    /// As long as the current DEK has invocations for all pages that may have to be sealed by it, which it would not have after the next lease, and another that is taken to seal ahead; or
    /// else when it has none left: a page that cannot be opened keeps its DEK's slot, and no program from the rest. The caller holds `lock`.
    private func needsRoom(sealing pages: Int) -> Bool {
        guard header.slots.count == DEKSlot.maximumCount, isWritable, stage != .unwritten else { return false }
        if isUsedUp { return invocationsLeft < UInt64(pages) }
        let next = header.slots[header.currentIndex].invocationBound + 2 * volume.options.invocationLease
        return !roomIsRefused && next + Geometry.pageCount(forSize: size) > volume.options.invocationLimit
    }

    /// All pages and attributes under the current DEK, and only its slot, at once and under the lock: before a fifth DEK is needed, since
    /// attributes cannot be sealed anew while `lock` alone is held: their gate comes before it. No lock is held.
    @inline(never)
    private func makeRoom() throws(Errno) {
        try volume.storingTrees { () throws(Errno) in
            try volume.attributeGate(inode).lock.withLock { (_) throws(Errno) in
                try volume.gate(inode).lock.withLock { (_) throws(Errno) in
                    try lock.writing { () throws(Errno) in
                        try requireKeys()
                        guard isWritable, header.slots.count == DEKSlot.maximumCount, stage != .unwritten else {
                            return
                        }
                        try volume.resealAttributes(of: self)
                        try reencryptLocked()
                    }
                }
            }
        }
    }

    /// The same for the pages. No attribute is under an old DEK; the caller holds `lock` alone.
    private func reencryptLocked() throws(Errno) {
        let buffer = volume.buffers.takeForSweep()
        defer { volume.buffers.give(buffer) }
        guard !volume.hasLostFlush else { throw .io }
        let pages = Geometry.pageCount(forSize: size)
        guard header.slots[header.currentIndex].invocationBound + pages <= Self.mostInvocations else { throw .io }
        // Stored before they are used.
        header.slots[header.currentIndex].invocationBound += pages
        try storeAsItIs()
        var first: UInt64 = 0
        while first < pages {
            let count = Int(min(UInt64(RequestBuffer.maximumPages), pages - first))
            buffer.willUse(pages: count)
            _ = try storePages(from: first, try sealStale(from: first, count: count, buffer), buffer)
            first += UInt64(count)
        }
        // Not by the file's descriptor: a program that flushes by it would be told in our place.
        do throws(Errno) { try volume.flushAll() } catch {
            volume.noteLostFlush(tree.map { [$0] } ?? [])
            throw error
        }
        try letOldDEKsGo()
        roomIsRefused = false
    }
}
