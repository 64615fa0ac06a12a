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
        let failed: PageIndex? = try volume.aead.withContext(for: key.content) { (context) throws(Errno) in
            var output = plain
            var page = first
            for index in 0..<count {
                let start = cipher + index * Geometry.pageSize
                guard try openPage(page, at: start, into: output, using: &context) else { return page }
                output += Geometry.capacity(of: page)
                page = PageIndex(rawValue: page.rawValue + 1)
            }
            return nil
        }
        if let failed { throw volume.damaged(.page, inode.number, page: failed.rawValue, "not authentic") }
    }

    /// False for a page that is not authentic, and for a hole where there may be none.
    func openPage(
        _ page: PageIndex, at start: UnsafeMutableRawPointer, into plain: UnsafeMutableRawPointer,
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
        var aad: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        do {
            try withUnsafeMutableBytes(of: &aad) { (aad) throws(CipherError) in
                guard let aadStart = aad.baseAddress else { return }
                PageAAD.prepare(aadStart, file: header.file)
                PageAAD.set(aadStart, page: page, leader: leader)
                try context.loadForOpening(key.content)
                try context.open(
                    iv: leaderStart, aad: UnsafeRawBufferPointer(aad),
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
        var aad: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        try withUnsafeMutableBytes(of: &aad) { (aad) throws(CipherError) in
            guard let aadStart = aad.baseAddress else { return }
            PageAAD.prepare(aadStart, file: header.file)
            PageAAD.set(aadStart, page: page, leader: leader)
            try context.seal(
                iv: leaderStart, aad: UnsafeRawBufferPointer(aad),
                plaintext: UnsafeRawBufferPointer(start: plain, count: Geometry.capacity(of: page)),
                ciphertext: leaderStart + Geometry.leaderSize, tag: leaderStart + PageLeader.tagOffset)
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
