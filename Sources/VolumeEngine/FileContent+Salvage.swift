import Ciphers
import Storage
import VolumeFormat

/// What `check --salvage` alone reads: pages that are genuine, and for whose version nothing vouches any more.
extension FileContent {
    /// The plaintext of a page, up to the file's end, whose line cannot be read as a node above it is damaged or gone. It is what was
    /// written at this place of this file; whether it is the newest version nobody can say. `nil` where nothing opens, and for a hole.
    /// `search` is the same for all pages of a request.
    func readUnlisted(
        _ page: PageIndex, _ search: inout SessionSearch, _ buffer: RequestBuffer
    ) throws(Errno) -> UnsafeRawBufferPointer? {
        guard let tree else { return nil }
        _ = try volume.keys(inode.zone)
        try ensureKeys()
        return try lock.reading { () throws(Errno) in
            try requireKeys()
            let start = Geometry.plainStart(of: page)
            guard start < size else { return nil }
            buffer.willUse(pages: 1)
            let got = try Lower.read(
                descriptor, into: buffer.cipher, count: Geometry.pageSize,
                at: page.rawValue * UInt64(Geometry.pageSize))
            let skip = page.rawValue == 0 ? Geometry.headerSize : 0
            guard got == Geometry.pageSize, PageLeader(at: buffer.cipher + skip).versionAndLength != 0 else {
                return nil
            }
            let newest = tree.session + 4
            var found: UInt64?
            defer { search.end(at: found) }
            found = try volume.aead.withContext(for: current.content) { (context) throws(Errno) in
                while let session = search.next(newest: newest) {
                    if try openPage(page, at: buffer.cipher, into: buffer.plain, session: session, using: &context) {
                        return session
                    }
                }
                return nil
            }
            guard found != nil else { return nil }
            _ = try volume.keys(inode.zone)
            let count = min(UInt64(Geometry.capacity(of: page)), size - start)
            return UnsafeRawBufferPointer(start: buffer.plain, count: Int(count))
        }
    }
}

/// In which session a page was sealed is looked for from the last page's on, which was often the same, and then from the newest one
/// down. Bounded for a request of a check as a whole (1 MiB): pages that open nowhere could cost any time.
struct SessionSearch {
    private var last: UInt64 = 1
    private var left = 1 << 20
    private var at: UInt64?

    /// The next one to try; `nil` when there is none.
    mutating func next(newest: UInt64) -> UInt64? {
        guard let tried = at else {
            at = newest + 1
            return last
        }
        guard tried > 0, left > 0 else { return nil }
        left -= 1
        at = tried - 1
        return tried - 1
    }

    /// This page is done; where it was found.
    mutating func end(at session: UInt64?) {
        at = nil
        if let session { last = session }
    }
}
