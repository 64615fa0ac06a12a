import Ciphers
import Storage
import VolumeFormat

/// What `check --salvage` alone reads: pages that are genuine, and for whose version nothing vouches any more.
extension FileContent {
    /// So many sessions back a page is looked for.
    private static let salvagedSessions: UInt64 = 1 << 16

    /// The plaintext of a page, up to the file's end, whose line cannot be read as a node above it is damaged or gone. It is what was
    /// written at this place of this file; whether it is the newest version nobody can say. `nil` where nothing opens, and for a hole.
    ///
    /// `session`: where the last page was found. Pages that were written together belong to the same one.
    func readUnlisted(
        _ page: PageIndex, near session: inout UInt64, _ buffer: RequestBuffer
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
            let newest = max(session, tree.session) + 4
            let found: UInt64? = try volume.aead.withContext(for: current.content) { (context) throws(Errno) in
                if try openPage(page, at: buffer.cipher, into: buffer.plain, session: session, using: &context) {
                    return session
                }
                for back in 0..<min(newest, Self.salvagedSessions)
                where try openPage(
                    page, at: buffer.cipher, into: buffer.plain, session: newest - back, using: &context)
                {
                    return newest - back
                }
                return nil
            }
            guard let found else { return nil }
            session = found
            _ = try volume.keys(inode.zone)
            let count = min(UInt64(Geometry.capacity(of: page)), size - start)
            return UnsafeRawBufferPointer(start: buffer.plain, count: Int(count))
        }
    }
}
