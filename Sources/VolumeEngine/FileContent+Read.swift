import Storage
import VolumeFormat

extension FileContent {
    /// Reads up to `count` bytes; what comes back lies in `buffer`, or at `landing`, and is shorter only at the end of the file.
    ///
    /// `landing`: room for `count` bytes, and for a page before and after them, which is used as well.
    package func read(
        at offset: UInt64, count: Int, _ buffer: RequestBuffer, landing: UnsafeMutableRawPointer? = nil
    ) throws(Errno) -> UnsafeRawBufferPointer {
        _ = try volume.keys(inode.zone)
        try ensureKeys()
        let count = min(count, RequestBuffer.maximumRequest)
        return try lock.reading { () throws(Errno) in
            try requireKeys()
            let end = min(offset &+ UInt64(count), size)
            guard offset < end else { return UnsafeRawBufferPointer(start: buffer.plain, count: 0) }
            let first = Geometry.page(at: offset)
            let pages = Int(Geometry.page(at: end - 1).rawValue - first.rawValue) + 1
            buffer.willUse(pages: pages)
            let got = try Lower.read(
                descriptor, into: buffer.cipher, count: pages * Geometry.pageSize,
                at: first.rawValue * UInt64(Geometry.pageSize))
            if got < pages * Geometry.pageSize, !holesAllowed {
                throw volume.damaged(.fileLength, inode.number, "shorter than its size")
            }
            let skip = Int(offset - Geometry.plainStart(of: first))
            let plain = landing.map { $0 - skip } ?? buffer.plain
            try openPages(first, count: pages, cipher: buffer.cipher, available: got, plain: plain)
            // The zone may have been closed meanwhile: then nothing leaves.
            _ = try volume.keys(inode.zone)
            return UnsafeRawBufferPointer(start: plain + skip, count: Int(end - offset))
        }
    }
}

/// SEEK_DATA and SEEK_HOLE.
enum SeekWhence {
    static let data: Int32 = 3
    static let hole: Int32 = 4
}
