import CLinux
import Ciphers
import Storage
import VolumeFormat

extension FileContent {
    /// ftruncate(2).
    package func truncate(to newSize: UInt64) throws(Errno) {
        guard newSize <= Geometry.maximumSize else { throw .fileTooBig }
        _ = try volume.keys(inode.zone)
        try lock.writing { () throws(Errno) in try truncateLocked(to: newSize) }
    }

    func truncateLocked(to newSize: UInt64) throws(Errno) {
        guard isWritable else { throw .badDescriptor }
        let (pages, newPages) = (Geometry.pageCount(forSize: size), Geometry.pageCount(forSize: newSize))
        if newPages > pages { markSparse() }
        _ = try prepareHeader(sealing: 1, inPlace: false)
        if newSize < size { try cutLastPage(at: newSize) }
        edge.forget()
        // Also for an unchanged size: the lower file gets its times from this.
        try Lower.truncate(descriptor, to: Geometry.lowerLength(forSize: newSize))
        size = newSize
        lengthTellsSize = true
        if newSize == 0 { header.flags.remove(.sparse) }
        if newPages < pages {
            // The first bytes of a page that fell away are in the tail now.
            tailIsDoubtful = true
            try zeroTail()
            tailIsDoubtful = false
        }
    }

    /// Lets the lower length tell `size`.
    func setLowerLength() throws(Errno) {
        try Lower.truncate(descriptor, to: Geometry.lowerLength(forSize: size))
        lengthTellsSize = true
    }

    /// Overwrites what lies behind the last page, where the lower length tells the size. It is a part of the next page's place,
    /// and must read as zeros: the file may grow over it without writing it.
    func zeroTail() throws(Errno) {
        guard size > 0 else { return }
        let start = Geometry.pageCount(forSize: size) * UInt64(Geometry.pageSize)
        let zeros = [UInt8](repeating: 0, count: Int(Geometry.lowerLength(forSize: size) - start))
        try zeros.withUnsafeBufferPointer { (zeros) throws(Errno) in
            guard let bytes = zeros.baseAddress else { return }
            try Lower.write(descriptor, from: bytes, count: zeros.count, at: start)
        }
    }

    /// Takes away what may lie behind the end, in the last page and after it. The caller holds `lock`.
    func clearTail() throws(Errno) {
        tailIsDoubtful = false
        do throws(Errno) {
            guard stage != .unwritten else { return try Lower.truncate(descriptor, to: 0) }
            // A last page that cannot be read stays as it is.
            do throws(Errno) { try cutLastPage(at: size) } catch { guard error == .io else { throw error } }
            try setLowerLength()
            try zeroTail()
        } catch {
            tailIsDoubtful = true
            throw error
        }
    }

    /// Makes the bytes after `end` zero in the page that holds the byte before it: they must not come back when the file grows.
    func cutLastPage(at end: UInt64) throws(Errno) {
        guard end > 0 else { return }
        let page = Geometry.page(at: end - 1)
        let used = Int(end - Geometry.plainStart(of: page))
        guard used < Geometry.capacity(of: page) else { return }
        try rewritePage(page, used: used) { plain in
            (plain + used).initializeMemory(as: UInt8.self, repeating: 0, count: Geometry.capacity(of: page) - used)
        }
    }

    /// Opens one page, changes its plaintext, and seals it again. A hole is left alone.
    func rewritePage(_ page: PageIndex, used: Int, _ change: (UnsafeMutableRawPointer) -> Void) throws(Errno) {
        let buffer = volume.buffers.take()
        defer { volume.buffers.give(buffer) }
        buffer.willUse(pages: 1)
        guard try loadPage(page, into: buffer.plain, scratch: buffer.cipher) else { return }
        change(buffer.plain)
        _ = try prepareHeader(sealing: 1, inPlace: false)
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
        try Lower.write(
            descriptor, from: buffer.cipher + skip, count: Geometry.pageSize - skip,
            at: page.rawValue * UInt64(Geometry.pageSize) + UInt64(skip))
    }
}
