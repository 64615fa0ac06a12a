import Ciphers
import Storage
import VolumeFormat

extension FileContent {
    /// Writes `data` (at most `RequestBuffer.maximumRequest` bytes) at `offset`: one lower write for the whole request.
    package func write(_ data: UnsafeRawBufferPointer, at offset: UInt64, _ buffer: RequestBuffer) throws(Errno) {
        guard data.count > 0 else { return }
        precondition(data.count <= RequestBuffer.maximumRequest)
        guard offset <= Geometry.maximumSize - UInt64(data.count) else { throw .fileTooBig }
        // What the kernel holds of a draining zone is stored still.
        _ = try volume.storingKeys(inode.zone)
        try ensureKeys()
        let sealed = try sealAhead(data, at: offset, buffer)
        // Pages at both ends, and the one in which the file ends.
        try changing(sealing: data.count / Geometry.payload + 3) { () throws(Errno) in
            try writeLocked(data, at: offset, buffer, sealed)
        }
    }

    /// Pages that lie in the buffer already, sealed.
    struct SealedAhead {
        /// With those at the edges, which keep some of what was there: they hold as long as nobody changes those pages.
        let hasEdges: Bool
        /// Changes of the file before.
        let changes: UInt64
        /// Of the key that sealed them.
        let key: UInt64
        /// In which they were sealed, where a tree lists them.
        let session: UInt64?
    }

    /// Fewer whole pages than that of a write that goes beyond the end are sealed while the file is held alone.
    private static let worthSealingAhead = 8

    /// Seals pages while the file is held shared only, so that several writes to it are sealed at a time, and the file is held alone for the lower
    /// write: all of a write within the file, the whole pages of one beyond its end. `nil` where that cannot be, or is not worth it.
    private func sealAhead(
        _ data: UnsafeRawBufferPointer, at offset: UInt64, _ buffer: RequestBuffer
    ) throws(Errno) -> SealedAhead? {
        return try lock.reading { () throws(Errno) -> SealedAhead? in
            let span = WriteSpan(offset: offset, count: data.count, oldSize: size)
            let hasEdges = span.newSize == span.oldSize
            guard let source = data.baseAddress, hasEdges || span.wholePages >= Self.worthSealingAhead, isWritable,
                stage == .open, !tailIsDoubtful, !keys.isEmpty,
                reserveInvocations(UInt64(hasEdges ? span.pages : span.wholePages))
            else { return nil }
            buffer.willUse(pages: span.pages)
            if hasEdges { try assembleEdges(span, source, buffer) }
            try sealPages(span, source, buffer) { !hasEdges && span.isPartial($0) }
            return SealedAhead(
                hasEdges: hasEdges, changes: changes.count, key: current.content.identity, session: tree?.session)
        }
    }

    func writeLocked(
        _ data: UnsafeRawBufferPointer, at offset: UInt64, _ buffer: RequestBuffer, _ ahead: SealedAhead? = nil
    ) throws(Errno) {
        guard isWritable else { throw .badDescriptor }
        try requireKeys()
        let span = WriteSpan(offset: offset, count: data.count, oldSize: size)
        let keepsEdges =
            ahead.map { $0.hasEdges && !changes.hasTouched(span.first, span.last, since: $0.changes) } ?? false
        changes.note(span.first, span.last)
        buffer.willUse(pages: span.pages)
        if span.skipsPages { markSparse() }
        let isWhole = isWholeFile(span)
        // A call that fails leaves a header that knows nothing of it.
        defer { if isWhole, stage != .closed { (header.state, header.size) = (.open, size) } }
        let withHeader =
            isWhole
            ? prepareWholeHeader(span)
            : try prepareHeader(sealing: span.pages, inPlace: span.first.rawValue == 0)
        // After what a crash left behind the end was cut off.
        try holdLines(span.first, count: span.pages)
        // A new DEK or session may have taken over since: then they are sealed again.
        let isSealed = ahead?.key == current.content.identity && ahead?.session == tree?.session
        if !isSealed || !keepsEdges { try sealSpan(span, data, buffer, wholePages: !isSealed) }
        // Counted whether or not the write succeeds: some of it may have been stored.
        invocationsLeft -= UInt64(isSealed ? (keepsEdges ? 0 : span.pages - span.wholePages) : span.pages)
        let startOffset: Int
        if withHeader {
            try encodeHeader(into: buffer.cipher)
            startOffset = 0
        } else {
            startOffset = span.first.rawValue == 0 ? Geometry.headerSize : 0
        }
        let wasHole = try lastPageWasHole(span)
        do {
            try Lower.write(
                descriptor, from: buffer.cipher + startOffset, count: span.pages * Geometry.pageSize - startOffset,
                at: span.first.rawValue * UInt64(Geometry.pageSize) + UInt64(startOffset))
        } catch {
            edge.forget()
            listWritten(span.first, count: span.pages, at: buffer.cipher)
            undoFailedWrite()
            throw error
        }
        listPages(span.first, count: span.pages, at: buffer.cipher)
        do throws(Errno) {
            if isWhole {
                try finishWholeFile(span)
            } else {
                if withHeader {
                    stage = .open
                    noteStored()
                }
                try settleLength(span, wasHole: wasHole)
            }
        } catch {
            edge.forget()
            undoFailedWrite()
            throw error
        }
        size = span.newSize
        if span.endsInside {
            let skip = Int(Geometry.plainStart(of: span.last) - Geometry.plainStart(of: span.first))
            edge.keep(span.last, buffer.plain + skip)
        } else if let kept = edge.page, kept >= span.first, kept <= span.last {
            edge.forget()
        }
    }

    /// Seals all pages of the span into `buffer.cipher`. Whole pages are sealed straight from the program's bytes; pages of
    /// which only a part is written are put together in `buffer.plain` first.
    private func sealSpan(
        _ span: WriteSpan, _ data: UnsafeRawBufferPointer, _ buffer: RequestBuffer, wholePages: Bool
    ) throws(Errno) {
        guard let source = data.baseAddress else { return }
        try assembleEdges(span, source, buffer)
        try sealPages(span, source, buffer) { !wholePages && !span.isPartial($0) }
    }

    private func sealPages(
        _ span: WriteSpan, _ source: UnsafeRawPointer, _ buffer: RequestBuffer, except: (PageIndex) -> Bool
    ) throws(Errno) {
        var iv = try PageIV()
        let key = current
        do {
            try volume.aead.withContext(for: key.content) { (context) throws(CipherError) in
                try context.loadForSealing(key.content)
                for index in 0..<span.pages {
                    let page = PageIndex(rawValue: span.first.rawValue + UInt64(index))
                    if except(page) { continue }
                    let start = Geometry.plainStart(of: page)
                    let capacity = UInt64(Geometry.capacity(of: page))
                    let used = Int(min(capacity, span.newSize - start))
                    let isWhole = start >= span.offset && start + capacity <= span.end
                    let plain: UnsafeRawPointer =
                        isWhole
                        ? source + Int(start - span.offset)
                        : UnsafeRawPointer(buffer.plain + Int(start - Geometry.plainStart(of: span.first)))
                    try sealPage(
                        page, used: used, plain: plain, at: buffer.cipher + index * Geometry.pageSize, iv: &iv,
                        using: &context)
                }
            }
        } catch { throw .io }
    }

    /// Puts the partly written first and last page together in their places in `buffer.plain`.
    private func assembleEdges(_ span: WriteSpan, _ source: UnsafeRawPointer, _ buffer: RequestBuffer) throws(Errno) {
        let base = Geometry.plainStart(of: span.first)
        let edges = 0..<(span.first == span.last ? 1 : 2)
        if span.pages == 2, try assemblePair(span, buffer) {
            // Both were read at once.
        } else {
            for index in edges where span.isPartial(span.edge(index)) {
                let page = span.edge(index)
                let target = buffer.plain + Int(Geometry.plainStart(of: page) - base)
                if Geometry.plainStart(of: page) < span.oldSize {
                    let scratch = buffer.cipher + (index == 0 ? 0 : (span.pages - 1) * Geometry.pageSize)
                    _ = try loadPage(page, into: target, scratch: scratch)
                } else {
                    target.initializeMemory(as: UInt8.self, repeating: 0, count: Geometry.capacity(of: page))
                }
            }
        }
        for index in edges where span.isPartial(span.edge(index)) {
            let page = span.edge(index)
            let start = Geometry.plainStart(of: page)
            let from = max(start, span.offset)
            let to = min(start + UInt64(Geometry.capacity(of: page)), span.end)
            (buffer.plain + Int(from - base)).copyMemory(
                from: source + Int(from - span.offset), byteCount: Int(to - from))
        }
    }

    /// Two adjacent partial pages, both there and neither kept: one read. False when that is not the case.
    private func assemblePair(_ span: WriteSpan, _ buffer: RequestBuffer) throws(Errno) -> Bool {
        guard span.isPartial(span.first), span.isPartial(span.last), Geometry.plainStart(of: span.last) < span.oldSize,
            edge.page != span.first, edge.page != span.last
        else { return false }
        let got = try Lower.read(
            descriptor, into: buffer.cipher, count: 2 * Geometry.pageSize,
            at: span.first.rawValue * UInt64(Geometry.pageSize))
        try openPages(span.first, count: 2, cipher: buffer.cipher, available: got, plain: buffer.plain)
        return true
    }

    /// True where the write lands in the last page, the page is a hole, and only the lower length knows its size.
    private func lastPageWasHole(_ span: WriteSpan) throws(Errno) -> Bool {
        guard holesAllowed, lengthTellsSize, span.growsWithinLastPage else { return false }
        let offset = Geometry.leaderOffset(of: span.last) + UInt64(PageLeader.versionOffset)
        let leader = try Lower.readValue(descriptor, at: offset, initial: UInt32(0))
        return leader == 0
    }

    /// After the pages: takes the size out of the lower length where the last page now carries it.
    ///
    /// While an old length and a new page could both be on disk, either gives the bytes that were flushed. Only where the last
    /// page was a hole does the page have to be durable first: without it no leader would tell the size.
    private func settleLength(_ span: WriteSpan, wasHole: Bool) throws(Errno) {
        guard span.newSize > span.oldSize else { return }
        if lengthTellsSize, span.growsWithinLastPage {
            if wasHole { try syncLower(descriptor, dataOnly: true) }
            try Lower.truncate(descriptor, to: (span.last.rawValue + 1) * UInt64(Geometry.pageSize))
        }
        lengthTellsSize = false
    }

    /// A lower write that failed may have left part of itself behind the end, or new bytes after the old end in the last page.
    private func undoFailedWrite() {
        tailIsDoubtful = true
        do throws(Errno) { try clearTail() } catch { volume.markDirty() }
    }
}

/// Which pages a write touches, and what becomes of the size.
struct WriteSpan {
    let offset: UInt64
    let end: UInt64
    let oldSize: UInt64
    let newSize: UInt64
    let first: PageIndex
    let last: PageIndex

    init(offset: UInt64, count: Int, oldSize: UInt64) {
        self.offset = offset
        self.oldSize = oldSize
        end = offset + UInt64(count)
        newSize = max(oldSize, end)
        first = Geometry.page(at: offset)
        last = Geometry.page(at: end - 1)
    }

    /// Pages that are written as a whole.
    var wholePages: Int {
        pages - (isPartial(first) ? 1 : 0) - (last != first && isPartial(last) ? 1 : 0)
    }

    var pages: Int { Int(last.rawValue - first.rawValue) + 1 }

    /// The first page (0), or the last (1).
    func edge(_ index: Int) -> PageIndex { index == 0 ? first : last }

    /// True when whole pages between the old end and the first one stay holes.
    var skipsPages: Bool { first.rawValue > Geometry.pageCount(forSize: oldSize) }

    /// True when the write ends before its last page does: the next append begins in it.
    var endsInside: Bool { isPartial(last) }

    /// True when the file grows and keeps its number of pages.
    var growsWithinLastPage: Bool {
        newSize > oldSize && oldSize > 0 && last.rawValue + 1 == Geometry.pageCount(forSize: oldSize)
    }

    func isPartial(_ page: PageIndex) -> Bool {
        let start = Geometry.plainStart(of: page)
        return start < offset || start + UInt64(Geometry.capacity(of: page)) > end
    }
}
