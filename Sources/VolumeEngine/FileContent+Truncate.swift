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
        _ = try prepareHeader(sealing: 1, inPlace: false)
        if newSize < size {
            try cutLastPage(at: newSize)
            if newSize == 0 { header.flags.remove(.sparse) }
        } else if Geometry.pageCount(forSize: newSize) > Geometry.pageCount(forSize: size) {
            markSparse()
        }
        // Also for an unchanged size: the lower file gets its times from this.
        try setLowerLength(forSize: newSize)
        size = newSize
        edge.forget()
    }

    /// Lets the lower length tell `newSize`. Its tail must be a hole: pages that fall away go first, or the first bytes of one
    /// of them would be left in the tail.
    func setLowerLength(forSize newSize: UInt64) throws(Errno) {
        let pages = Geometry.pageCount(forSize: newSize)
        if pages > 0, pages < Geometry.pageCount(forSize: size) { try Lower.truncate(descriptor, to: pages * UInt64(Geometry.pageSize)) }
        try Lower.truncate(descriptor, to: Geometry.lowerLength(forSize: newSize))
        lengthTellsSize = true
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
