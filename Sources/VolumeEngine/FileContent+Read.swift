import Storage
import VolumeFormat

extension FileContent {
    /// Reads up to `count` bytes; what comes back lies in `buffer`, and is shorter only at the end of the file.
    package func read(at offset: UInt64, count: Int, _ buffer: RequestBuffer) throws(Errno) -> UnsafeRawBufferPointer {
        _ = try volume.keys(inode.zone)
        let count = min(count, RequestBuffer.maximumRequest)
        return try lock.reading { () throws(Errno) in
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
            try openPages(first, count: pages, cipher: buffer.cipher, available: got, plain: buffer.plain)
            let skip = Int(offset - Geometry.plainStart(of: first))
            return UnsafeRawBufferPointer(start: buffer.plain + skip, count: Int(end - offset))
        }
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE, in steps of pages.
    package func seek(_ offset: UInt64, data: Bool) throws(Errno) -> UInt64 {
        try lock.reading { () throws(Errno) in
            guard offset < size else { throw .noSuchDevice }
            if !holesAllowed { return data ? offset : size }
            var page = Geometry.page(at: offset)
            let end = Geometry.page(at: size - 1)
            while page <= end {
                let lower = page.rawValue == 0 ? 0 : page.rawValue * UInt64(Geometry.pageSize)
                if page.rawValue == 0, try isFirstPageHole() {
                    if !data { return offset }
                    page = PageIndex(rawValue: 1)
                    continue
                }
                if page.rawValue == 0, data { return offset }
                let found: UInt64
                do throws(Errno) {
                    found = try Lower.seek(
                        descriptor, to: max(lower, UInt64(Geometry.headerSize)),
                        whence: data ? SeekWhence.data : SeekWhence.hole)
                } catch {
                    guard error == .noSuchDevice else { throw error }
                    if data { throw .noSuchDevice }
                    return size
                }
                // A hole counts from the first page that lies in it whole; data from the page it begins in.
                let unit = UInt64(Geometry.pageSize)
                let index = data ? found / unit : (found + unit - 1) / unit
                if index > end.rawValue {
                    if data { throw .noSuchDevice }
                    return size
                }
                return max(offset, Geometry.plainStart(of: PageIndex(rawValue: index)))
            }
            if data { throw .noSuchDevice }
            return size
        }
    }

    /// Page 0 always has a header; its payload is a hole when its leader is zero.
    private func isFirstPageHole() throws(Errno) -> Bool {
        let zero: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        let leader = try Lower.readValue(descriptor, at: UInt64(Geometry.headerSize), initial: zero)
        return leader == zero
    }
}

/// SEEK_DATA and SEEK_HOLE.
enum SeekWhence {
    static let data: Int32 = 3
    static let hole: Int32 = 4
}
