import CLinux
import Ciphers
import KeyManagement
import Secrets
import Storage
import VolumeFormat

/// A file's header, read, authenticated and compared with the lower file (FORMAT §4, §9).
struct LoadedFile {
    var header: FileHeader
    var keys: [FileKeys]
    var size: UInt64
    var holesAllowed: Bool
    /// A crash may have left size or holes behind the header's back; it is stored anew at the next close.
    var isDoubtful: Bool
    /// A crash may have left it as it is.
    var isExplained: Bool
    var lengthTellsSize: Bool
}

extension Volume {
    /// Reads the header of an open lower file.
    ///
    /// A header that says "closed" must fit the lower length exactly. Anything else is accepted only where a crash explains it:
    /// the header was stored in a mount that crashed, or before one; or by this mount, which failed to close it, or did not, since its
    /// last name was gone.
    ///
    /// `attributes`: those of the lower file, where they were just read.
    func load(_ inode: Inode, _ descriptor: Descriptor, _ attributes: stat? = nil) throws(Errno) -> LoadedFile? {
        let info: stat
        if let attributes { info = attributes } else { info = try Lower.stat(descriptor) }
        let length = UInt64(info.st_size)
        let interpreted = Geometry.interpret(lowerLength: length)
        if interpreted == .unwritten {
            guard lastCrashedEpoch > 0 || isDirty else { throw damaged(.fileLength, inode.number, "no header") }
            return nil
        }
        let read = try readHeader(inode.zone, inode.number, descriptor) { (other) throws(Errno) in
            guard try admits(inode, other) else { return false }
            // First the zone, then its keys: a revocation finds it.
            inode.setZone(other)
            _ = try keys(other)
            return true
        }
        guard let (header, keys) = read else { return nil }
        // What has lost its last name is closed without a header that tells; programs may still find it by what they hold of it.
        let explained =
            header.epoch <= lastCrashedEpoch || (header.epoch == epoch && (isDirty || info.st_nlink == 0))
        if header.state == .closed, interpreted == .size(header.size) {
            return LoadedFile(
                header: header, keys: keys, size: header.size,
                holesAllowed: header.flags.contains(.sparse) || explained,
                isDoubtful: explained && header.epoch != epoch, isExplained: explained, lengthTellsSize: true)
        }
        guard explained else { throw damaged(.fileLength, inode.number, "does not fit the header") }
        var loaded = LoadedFile(
            header: header, keys: keys, size: 0, holesAllowed: true, isDoubtful: true, isExplained: true,
            lengthTellsSize: false)
        loaded.size = try recoverSize(loaded, inode, descriptor, length)
        // Until the file is settled its length is whatever it is: the first growth sets it right.
        loaded.lengthTellsSize = length % UInt64(Geometry.pageSize) != 0
        return loaded
    }

    /// `nil` where a crash left no header. Where it says another zone than `zone`, `isAdmitted` is asked: see `admits`.
    func readHeader(
        _ zone: ZoneID, _ number: UInt64, _ descriptor: Descriptor,
        isAdmitted: (ZoneID) throws(Errno) -> Bool = { (_) throws(Errno) in false }
    ) throws(Errno) -> (FileHeader, [FileKeys])? {
        for attempt in 0..<Self.headerReads {
            guard let read = try readAuthenticHeader(zone, number, descriptor, isAdmitted) else { return nil }
            let reason: String
            switch manifest?.admit(read.0) {
            case nil, .accepted: return read
            case .older(let seen): reason = "older than the manifest: generation \(read.0.generation), \(seen) was seen"
            case .removed: reason = "not in the manifest: it was removed"
            }
            // One without a name is who it was when it had one.
            if try Lower.stat(descriptor).st_nlink == 0 { return read }
            // A program may have had it stored between the read and the comparison.
            if attempt == Self.headerReads - 1 { throw damaged(.fileHeader, number, reason) }
        }
        return nil
    }

    private static let headerReads = 3

    private func readAuthenticHeader(
        _ zone: ZoneID, _ number: UInt64, _ descriptor: Descriptor, _ isAdmitted: (ZoneID) throws(Errno) -> Bool
    ) throws(Errno) -> (FileHeader, [FileKeys])? {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Geometry.headerSize, alignment: 16)
        defer { buffer.deallocate() }
        guard let start = buffer.baseAddress else { throw .noMemory }
        let got = try Lower.read(descriptor, into: start, count: Geometry.headerSize, at: 0)
        guard got == Geometry.headerSize else { throw damaged(.fileHeader, number, "truncated") }
        let bytes = UnsafeRawBufferPointer(buffer)
        // A file system may know a file's length before it has written its first block.
        if lastCrashedEpoch > 0, bytes.allSatisfy({ $0 == 0 }) { return nil }
        let header: FileHeader
        do { header = try FileHeader(parsing: bytes) } catch {
            throw damaged(.fileHeader, number, "\(error.code.rawValue)")
        }
        guard header.volume == description.volume else {
            throw damaged(.fileHeader, number, "of another volume or zone")
        }
        guard (header.tree != nil) == (trees != nil) else {
            throw damaged(.fileHeader, number, "of another kind of volume")
        }
        if header.zone != zone, !(try isAdmitted(header.zone)) {
            throw damaged(.fileHeader, number, "of another volume or zone")
        }
        let keys = try fileKeys(header, number)
        let code: [UInt8]
        do {
            code = try HMACSHA256.code(
                key: keys[header.currentIndex].headerMAC,
                message: UnsafeRawBufferPointer(rebasing: bytes[..<FileHeader.authenticatedSize]))
        } catch { throw .io }
        guard HMACSHA256.isEqual(code, Array(bytes[FileHeader.authenticatedSize...])) else {
            throw damaged(.fileHeader, number, "not authentic")
        }
        return (header, keys)
    }

    func fileKeys(_ header: FileHeader, _ number: UInt64) throws(Errno) -> [FileKeys] {
        let zoneKeys = try storingKeys(header.zone)
        var keys: [FileKeys] = []
        for slot in header.slots {
            let dek: SecretKey
            do { dek = try zoneKeys.unwrap(slot) } catch {
                throw damaged(.fileHeader, number, "DEK slot: \(error.code.rawValue)")
            }
            do {
                keys.append(
                    try FileKeys(version: slot.version, dek: dek, file: header.file, isListed: header.tree != nil))
            } catch { throw .io }
        }
        return keys
    }

    /// The size of a file that was not closed (FORMAT §9): what the lower length says, or the last page's leader, whichever is
    /// more. Where the length says nothing, empty pages at the end were never flushed, and do not count, unless the header
    /// knows of them.
    private func recoverSize(
        _ loaded: LoadedFile, _ inode: Inode, _ descriptor: Descriptor, _ length: UInt64
    ) throws(Errno) -> UInt64 {
        let pages = length / UInt64(Geometry.pageSize)
        guard pages > 0 else { return 0 }
        let last = PageIndex(rawValue: pages - 1)
        let told = min(Int(length % UInt64(Geometry.pageSize)), Geometry.capacity(of: last))
        let start = Geometry.plainStart(of: last)
        if told > 0 { return start + UInt64(max(told, try usedLength(of: last, descriptor))) }
        let known = min(loaded.header.size, start + UInt64(Geometry.capacity(of: last)))
        let knownPages = Geometry.pageCount(forSize: known)
        var page = last
        var looked = 0
        while page.rawValue + 1 > knownPages {
            let used = try usedLength(of: page, descriptor)
            if used > 0 { return max(known, Geometry.plainStart(of: page) + UInt64(used)) }
            if page.rawValue == 0 { break }
            looked += 1
            // Many holes: hop over them to where the last data ends, so that no length costs more than the data there is.
            // Only then: a file system may take what it has not written yet for a hole.
            let next = looked == Self.holesLookedAt ? try lastDataPage(descriptor, from: knownPages) : nil
            page = PageIndex(rawValue: min(page.rawValue - 1, next ?? UInt64.max))
        }
        guard knownPages > 0 else { return known }
        // The header's last page may have been written to, or not.
        let used = try usedLength(of: page, descriptor)
        return max(known, used > 0 ? Geometry.plainStart(of: page) + UInt64(used) : 0)
    }

    /// Empty pages at the end that are looked at one by one.
    private static let holesLookedAt = 4096

    /// The page in which the last data lies, or the one after it; `first` if there is none after that.
    private func lastDataPage(_ descriptor: Descriptor, from first: UInt64) throws(Errno) -> UInt64 {
        var position = first * UInt64(Geometry.pageSize)
        while let data = try seek(descriptor, from: position, SeekWhence.data),
            let hole = try seek(descriptor, from: data, SeekWhence.hole)
        { position = hole }
        return position / UInt64(Geometry.pageSize)
    }

    /// lseek(2) for data or a hole; `nil` where there is none.
    private func seek(_ descriptor: Descriptor, from offset: UInt64, _ whence: Int32) throws(Errno) -> UInt64? {
        do throws(Errno) { return try Lower.seek(descriptor, to: offset, whence: whence) } catch {
            guard error == .noSuchDevice else { throw error }
            return nil
        }
    }

    /// Payload bytes that a page's leader says are in use; 0 for a hole. The leader is authenticated when the page is read; until
    /// then it decides nothing but where the file ends.
    func usedLength(of page: PageIndex, _ descriptor: Descriptor) throws(Errno) -> Int {
        let offset = Geometry.leaderOffset(of: page) + UInt64(PageLeader.versionOffset)
        let leader = try Lower.readValue(descriptor, at: offset, initial: UInt32(0))
        return min(PageLeader(versionAndLength: UInt32(littleEndian: leader)).usedLength, Geometry.capacity(of: page))
    }
}
