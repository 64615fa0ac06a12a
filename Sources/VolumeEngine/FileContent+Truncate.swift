import CLinux
import Ciphers
import Storage
import VolumeFormat

extension FileContent {
    /// ftruncate(2).
    package func truncate(to newSize: UInt64) throws(Errno) {
        guard newSize <= Geometry.maximumSize else { throw .fileTooBig }
        _ = try volume.keys(inode.zone)
        try ensureKeys()
        // The page in which the file ends, before and after.
        try changing(sealing: newSize == 0 ? 0 : 2) { () throws(Errno) in try truncateLocked(to: newSize) }
    }

    func truncateLocked(to newSize: UInt64) throws(Errno) {
        guard isWritable else { throw .badDescriptor }
        try requireKeys()
        changes.noteAll()
        // Of an empty file no tail is left to be cut, which would have to be sealed.
        let wasDoubtful = tailIsDoubtful
        if newSize == 0 { tailIsDoubtful = false }
        do throws(Errno) {
            _ = try prepareHeader(sealing: newSize == 0 ? 0 : 1, inPlace: false)
            edge.forget()
            if newSize < size || newSize == 0 { try shrink(to: newSize) } else { try grow(to: newSize) }
        } catch {
            tailIsDoubtful = wasDoubtful
            throw error
        }
        // A last page that is a hole tells no size after a crash: then the header does.
        header.size = size
        header.generation += 1
        try storeHeader()
    }

    private func grow(to newSize: UInt64) throws(Errno) {
        if Geometry.pageCount(forSize: newSize) > Geometry.pageCount(forSize: size) { markSparse() }
        // Also for an unchanged size: the lower file gets its times from this.
        try Lower.truncate(descriptor, to: Geometry.lowerLength(forSize: newSize))
        size = newSize
        lengthTellsSize = true
    }

    /// Pages that fall away go first, then the last page is cut, then the lower length tells the size: whatever fails in
    /// between, or is lost in a crash, the file is between old and new, and each page is whole.
    private func shrink(to newSize: UInt64) throws(Errno) {
        let newPages = Geometry.pageCount(forSize: newSize)
        guard newPages > 0 else {
            try Lower.truncate(descriptor, to: Geometry.lowerLength(forSize: 0))
            cutLines(to: 0)
            header.flags.remove(.sparse)
            size = 0
            lengthTellsSize = true
            return
        }
        if newPages < Geometry.pageCount(forSize: size) {
            try keepTelling(newSize, by: PageIndex(rawValue: newPages - 1))
            try Lower.truncate(descriptor, to: newPages * UInt64(Geometry.pageSize))
            cutLines(to: newPages)
            let last = PageIndex(rawValue: newPages - 1)
            size = Geometry.plainStart(of: last) + UInt64(Geometry.capacity(of: last))
            lengthTellsSize = false
        }
        try cutLastPage(at: newSize)
        size = newSize
        try setLowerLength()
    }

    /// Before pages fall away. The page that becomes the last one may have been sealed when the file ended inside it, or be a hole: its
    /// leader would tell too little after a crash. Then the header tells, durably, since no file system orders the two.
    private func keepTelling(_ newSize: UInt64, by page: PageIndex) throws(Errno) {
        let needed = Int(newSize - Geometry.plainStart(of: page))
        guard try volume.usedLength(of: page, descriptor) < needed else { return }
        header.size = newSize
        header.generation += 1
        try storeHeader()
        try syncLower(descriptor, dataOnly: true)
    }

    /// Lets the lower length tell `size`. Its tail is a hole: what lay behind the last page is cut off first.
    func setLowerLength() throws(Errno) {
        let pages = Geometry.pageCount(forSize: size)
        if pages > 0 { try Lower.truncate(descriptor, to: pages * UInt64(Geometry.pageSize)) }
        cutLines(to: pages)
        lengthTellsSize = false
        try Lower.truncate(descriptor, to: Geometry.lowerLength(forSize: size))
        lengthTellsSize = true
    }

    /// Takes away what may lie behind the end, in the last page and after it. The caller holds `lock`.
    func clearTail() throws(Errno) {
        tailIsDoubtful = false
        do throws(Errno) {
            guard stage != .unwritten else {
                try Lower.truncate(descriptor, to: 0)
                return cutLines(to: 0)
            }
            // A last page that cannot be read stays as it is.
            try cutLastPage(at: size, leavesUnreadable: true)
            try setLowerLength()
        } catch {
            tailIsDoubtful = true
            throw error
        }
    }

    /// Makes the bytes after `end` zero in the page that holds the byte before it: they must not come back when the file grows.
    func cutLastPage(at end: UInt64, leavesUnreadable: Bool = false) throws(Errno) {
        guard end > 0 else { return }
        let page = Geometry.page(at: end - 1)
        let used = Int(end - Geometry.plainStart(of: page))
        guard used < Geometry.capacity(of: page) else { return }
        try rewritePage(page, used: used, leavesUnreadable: leavesUnreadable) { plain in
            (plain + used).initializeMemory(as: UInt8.self, repeating: 0, count: Geometry.capacity(of: page) - used)
        }
    }

    /// Opens one page, changes its plaintext, and seals it again. A hole is left alone.
    func rewritePage(
        _ page: PageIndex, used: Int, leavesUnreadable: Bool = false, _ change: (UnsafeMutableRawPointer) -> Void
    ) throws(Errno) {
        let buffer = volume.buffers.take()
        defer { volume.buffers.give(buffer) }
        buffer.willUse(pages: 1)
        do throws(Errno) {
            guard try loadPage(page, into: buffer.plain, scratch: buffer.cipher) else { return }
        } catch {
            if leavesUnreadable, error == .io { return }
            throw error
        }
        change(buffer.plain)
        _ = try prepareHeader(sealing: 1, inPlace: false)
        try holdLines(page, count: 1)
        var iv = try PageIV()
        let key = current
        do {
            try volume.aead.withContext(for: key.content) { (context) throws(CipherError) in
                try context.loadForSealing(key.content)
                try sealPage(page, used: used, plain: buffer.plain, at: buffer.cipher, iv: &iv, using: &context)
            }
        } catch { throw .io }
        invocationsLeft -= 1
        edge.forget()
        let skip = page.rawValue == 0 ? Geometry.headerSize : 0
        do {
            try Lower.write(
                descriptor, from: buffer.cipher + skip, count: Geometry.pageSize - skip,
                at: page.rawValue * UInt64(Geometry.pageSize) + UInt64(skip))
        } catch {
            listWritten(page, count: 1, at: buffer.cipher)
            throw error
        }
        listPages(page, count: 1, at: buffer.cipher)
    }
}
