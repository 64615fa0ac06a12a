import Storage
import VolumeFormat

/// Holes that `check` need not read: a sparse file may be of any size.
extension FileContent {
    /// The first stretch from `offset` on, before `end`, that holds something or should: what lies before it are holes which reading
    /// would find to be zeros, and rightly so. `nil` where nothing more comes. Plaintext offsets.
    ///
    /// Where the page tree does not tell whether a hole is one, the hole counts as nothing, and `onDamage` is called.
    func nextStretch(
        from offset: UInt64, to end: UInt64, onDamage: (Errno) -> Void
    ) throws(Errno) -> Range<UInt64>? {
        _ = try volume.keys(inode.zone)
        try ensureKeys()
        return try lock.reading { () throws(Errno) -> Range<UInt64>? in
            try requireKeys()
            let end = min(end, size)
            guard offset < end else { return nil }
            guard holesAllowed else { return offset..<end }
            let page = Geometry.page(at: offset).rawValue
            let data = seekPage(from: page, SeekWhence.data)
            if data == page {
                let hole = seekPage(from: page, SeekWhence.hole).map { max($0, page + 1) }
                return offset..<min(end, Self.start(hole))
            }
            let listed: Range<UInt64>?
            do throws(Errno) { listed = try nextListed(from: page) } catch {
                onDamage(error)
                listed = nil
            }
            // What the tree lists up to the next data, or that data.
            if let listed, listed.lowerBound < data ?? .max {
                let first = max(offset, Self.start(listed.lowerBound))
                let last = min(end, Self.start(min(listed.upperBound, data ?? .max)))
                return first < last ? first..<last : nil
            }
            guard let data, Self.start(data) < end else { return nil }
            let hole = seekPage(from: data, SeekWhence.hole).map { max($0, data + 1) }
            return Self.start(data)..<min(end, Self.start(hole))
        }
    }

    /// The next pages from `page` on that the tree lists; `nil` without a tree, too. Of a node that cannot be read, all of them.
    private func nextListed(from page: UInt64) throws(Errno) -> Range<UInt64>? {
        guard let tree else { return nil }
        var page = page
        while let leaf = try nextListedLeaf(from: PageTree.leaf(of: page).index, of: tree) {
            page = max(page, leaf * UInt64(TreeGeometry.arity))
            let end = (leaf + 1) * UInt64(TreeGeometry.arity)
            let lines: [TreeEntry]
            do throws(Errno) {
                lines = try self.lines(PageIndex(rawValue: page), count: Int(end - page)) ?? []
            } catch {
                // Reading them tells.
                _ = DamageScope.take()
                return page..<end
            }
            if let first = lines.firstIndex(where: { !$0.isNone }) {
                let last = lines[first...].firstIndex(where: \.isNone) ?? lines.count
                return page + UInt64(first)..<page + UInt64(last)
            }
            page = end
        }
        return nil
    }

    /// Where a page's plaintext starts; `nil` is behind all pages.
    private static func start(_ page: UInt64?) -> UInt64 {
        guard let page, page < UInt64.max / UInt64(Geometry.pageSize) else { return .max }
        return Geometry.plainStart(of: PageIndex(rawValue: page))
    }

    /// The page in which data, or a hole, comes next; `nil` where none does. Of a page with both: its data. Where the lower storage cannot
    /// tell, all is data, and reading it says what is wrong.
    private func seekPage(from page: UInt64, _ whence: Int32) -> UInt64? {
        do throws(Errno) {
            let found = try Lower.seek(descriptor, to: page * UInt64(Geometry.pageSize), whence: whence)
            let up = whence == SeekWhence.hole ? UInt64(Geometry.pageSize) - 1 : 0
            return (found + up) / UInt64(Geometry.pageSize)
        } catch { return error != .noSuchDevice && whence == SeekWhence.data ? page : nil }
    }
}
