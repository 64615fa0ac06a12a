import Ciphers
import Storage
import VolumeFormat

extension FileContent {
    /// Opens consecutive cipher pages into consecutive plaintext. The caller holds `lock`.
    ///
    /// `available` bytes of `cipher` were read; what is missing of the last pages counts as a hole.
    func openPages(
        _ first: PageIndex, count: Int, cipher: UnsafeMutableRawPointer, available: Int, plain: UnsafeMutableRawPointer
    ) throws(Errno) {
        let wanted = count * Geometry.pageSize
        if available < wanted {
            (cipher + available).initializeMemory(as: UInt8.self, repeating: 0, count: wanted - available)
        }
        let key = current
        let lines = try lines(first, count: count)
        let failed: PageIndex? = try volume.aead.withContext(for: key.content) { (context) throws(Errno) in
            var output = plain
            var page = first
            for index in 0..<count {
                let start = cipher + index * Geometry.pageSize
                guard try openPage(page, at: start, into: output, line: lines?[index], using: &context) else {
                    return page
                }
                output += Geometry.capacity(of: page)
                page = PageIndex(rawValue: page.rawValue + 1)
            }
            return nil
        }
        guard let failed else { return }
        let index = Int(failed.rawValue - first.rawValue)
        throw damagedPage(failed, at: cipher + index * Geometry.pageSize, lines?[index])
    }

    func damagedPage(_ page: PageIndex, at start: UnsafeRawPointer, _ line: TreeEntry?) -> Errno {
        let leader = start + (page.rawValue == 0 ? Geometry.headerSize : 0)
        let isListed = line.map { $0.hasTag(at: leader + PageLeader.tagOffset) } ?? true
        return volume.damaged(
            .page, inode.number, page: page.rawValue,
            isListed ? "not authentic" : "not the version that the page tree lists")
    }

    /// False for a page that is not authentic, or not what `line` lists, and for a hole where there may be none.
    func openPage(
        _ page: PageIndex, at start: UnsafeMutableRawPointer, into plain: UnsafeMutableRawPointer, line: TreeEntry?,
        using context: inout AEADContext
    ) throws(Errno) -> Bool {
        let leaderStart = start + (page.rawValue == 0 ? Geometry.headerSize : 0)
        guard let line, PageLeader(at: leaderStart).versionAndLength != 0 else {
            // A page that is all zero.
            guard try openPage(page, at: start, into: plain, session: nil, using: &context) else { return false }
            if line?.isNone ?? true { return true }
            return try admitsHole(page)
        }
        if !line.isNone, line.hasTag(at: leaderStart + PageLeader.tagOffset) {
            return try openPage(page, at: start, into: plain, session: line.word, using: &context)
        }
        return try openUnlisted(page, at: start, into: plain, using: &context)
    }

    /// The same by the page alone; `session` is that of its line.
    func openPage(
        _ page: PageIndex, at start: UnsafeMutableRawPointer, into plain: UnsafeMutableRawPointer, session: UInt64?,
        using context: inout AEADContext
    ) throws(Errno) -> Bool {
        let skip = page.rawValue == 0 ? Geometry.headerSize : 0
        let capacity = Geometry.capacity(of: page)
        let leaderStart = start + skip
        let leader = PageLeader(at: leaderStart)
        if leader.versionAndLength == 0 {
            guard holesAllowed, Self.isZero(leaderStart, count: Geometry.pageSize - skip) else { return false }
            plain.initializeMemory(as: UInt8.self, repeating: 0, count: capacity)
            return true
        }
        guard leader.usedLength <= capacity, let key = keys.first(where: { $0.version == leader.version }) else {
            return false
        }
        do {
            try withAAD(page, leader, session) { (aad) throws(CipherError) in
                try context.loadForOpening(key.content)
                try context.open(
                    iv: leaderStart, aad: aad,
                    ciphertext: UnsafeRawBufferPointer(start: leaderStart + Geometry.leaderSize, count: capacity),
                    tag: leaderStart + PageLeader.tagOffset, plaintext: plain)
            }
            return true
        } catch {
            if error.code == .notAuthentic { return false }
            throw .io
        }
    }

    /// Seals one page's payload (`Geometry.capacity` bytes, zeros after `used`) into its place in `cipher`.
    func sealPage(
        _ page: PageIndex, used: Int, plain: UnsafeRawPointer, at start: UnsafeMutableRawPointer, iv: inout PageIV,
        using context: inout AEADContext
    ) throws(CipherError) {
        let leaderStart = start + (page.rawValue == 0 ? Geometry.headerSize : 0)
        let leader = PageLeader(version: current.version, usedLength: used)
        iv.next(into: leaderStart)
        leader.store(at: leaderStart)
        try withAAD(page, leader, tree?.session) { (aad) throws(CipherError) in
            try context.seal(
                iv: leaderStart, aad: aad,
                plaintext: UnsafeRawBufferPointer(start: plain, count: Geometry.capacity(of: page)),
                ciphertext: leaderStart + Geometry.leaderSize, tag: leaderStart + PageLeader.tagOffset)
        }
    }

    /// The additional data of a page; with a `session` that of one that a tree lists.
    @inline(__always)
    private func withAAD(
        _ page: PageIndex, _ leader: PageLeader, _ session: UInt64?,
        _ body: (UnsafeRawBufferPointer) throws(CipherError) -> Void
    ) throws(CipherError) {
        var aad: (UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0)
        try withUnsafeMutableBytes(of: &aad) { (aad) throws(CipherError) in
            guard let start = aad.baseAddress else { return }
            PageAAD.prepare(start, file: header.file, isListed: session != nil)
            PageAAD.set(start, page: page, leader: leader)
            if let session { PageAAD.set(start, session: session) }
            try body(UnsafeRawBufferPointer(start: start, count: session == nil ? PageAAD.size : PageAAD.listedSize))
        }
    }

    /// The plaintext of one page, from the edge cache or the lower file. False when the page is a hole.
    func loadPage(_ page: PageIndex, into plain: UnsafeMutableRawPointer, scratch: UnsafeMutableRawPointer)
        throws(Errno) -> Bool
    {
        if edge.load(page, into: plain) { return true }
        let got = try Lower.read(
            descriptor, into: scratch, count: Geometry.pageSize, at: page.rawValue * UInt64(Geometry.pageSize))
        try openPages(page, count: 1, cipher: scratch, available: got, plain: plain)
        let skip = page.rawValue == 0 ? Geometry.headerSize : 0
        return PageLeader(at: scratch + skip).versionAndLength != 0
    }

    static func isZero(_ start: UnsafeRawPointer, count: Int) -> Bool {
        let words = count / 8
        for index in 0..<words where start.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self) != 0 {
            return false
        }
        for index in (words * 8)..<count where start.load(fromByteOffset: index, as: UInt8.self) != 0 { return false }
        return true
    }
}

/// The IVs of one write request (SP 800-38D §8.2.2): a random 96-bit start, then its successors.
struct PageIV {
    private var low: UInt64
    private var high: UInt32

    init() throws(Errno) {
        var words: (UInt64, UInt32) = (0, 0)
        do {
            try withUnsafeMutableBytes(of: &words) { (bytes) throws(CipherError) in
                try RandomBytes.fillPublic(UnsafeMutableRawBufferPointer(rebasing: bytes[..<AEADContext.ivSize]))
            }
        } catch { throw .io }
        (low, high) = words
    }

    /// Writes the next IV, 12 bytes.
    mutating func next(into output: UnsafeMutableRawPointer) {
        output.storeBytes(of: low, as: UInt64.self)
        output.storeBytes(of: high, toByteOffset: 8, as: UInt32.self)
        let (sum, carried) = low.addingReportingOverflow(1)
        low = sum
        if carried { high &+= 1 }
    }
}
