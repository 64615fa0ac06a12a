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
    var lengthTellsSize: Bool
}

extension Volume {
    /// Reads the header of an open lower file.
    ///
    /// A header that says "closed" must fit the lower length exactly. Anything else is accepted only where a crash explains it:
    /// the header was stored in a mount that crashed, or before one; or by this mount, which failed to close it.
    func load(_ inode: Inode, _ descriptor: Descriptor) throws(Errno) -> LoadedFile? {
        let length = UInt64(try Lower.stat(descriptor).st_size)
        let interpreted = Geometry.interpret(lowerLength: length)
        if interpreted == .unwritten {
            guard lastCrashedEpoch > 0 || isDirty else { throw damaged(.fileLength, inode.number, "no header") }
            return nil
        }
        let (header, keys) = try readHeader(inode, descriptor)
        let explained =
            header.epoch <= lastCrashedEpoch || (header.epoch == epoch && (header.state == .open || isDirty))
        if header.state == .closed, interpreted == .size(header.size) {
            return LoadedFile(
                header: header, keys: keys, size: header.size,
                holesAllowed: header.flags.contains(.sparse) || explained,
                isDoubtful: explained && header.epoch != epoch, lengthTellsSize: true)
        }
        guard explained else { throw damaged(.fileLength, inode.number, "does not fit the header") }
        var loaded = LoadedFile(
            header: header, keys: keys, size: 0, holesAllowed: true, isDoubtful: true, lengthTellsSize: false)
        loaded.size = try recoverSize(loaded, inode, descriptor, length)
        // Until the file is settled its length is whatever it is: the first growth sets it right.
        loaded.lengthTellsSize = length % UInt64(Geometry.pageSize) != 0
        return loaded
    }

    private func readHeader(_ inode: Inode, _ descriptor: Descriptor) throws(Errno) -> (FileHeader, [FileKeys]) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Geometry.headerSize, alignment: 16)
        defer { buffer.deallocate() }
        guard let start = buffer.baseAddress else { throw .noMemory }
        let got = try Lower.read(descriptor, into: start, count: Geometry.headerSize, at: 0)
        guard got == Geometry.headerSize else { throw damaged(.fileHeader, inode.number, "truncated") }
        let bytes = UnsafeRawBufferPointer(buffer)
        let header: FileHeader
        do { header = try FileHeader(parsing: bytes) } catch {
            throw damaged(.fileHeader, inode.number, "\(error.code.rawValue)")
        }
        guard header.volume == description.volume, header.zone == inode.zone else {
            throw damaged(.fileHeader, inode.number, "of another volume or zone")
        }
        let keys = try fileKeys(header, inode)
        let code: [UInt8]
        do {
            code = try HMACSHA256.code(
                key: keys[header.currentIndex].headerMAC,
                message: UnsafeRawBufferPointer(rebasing: bytes[..<FileHeader.authenticatedSize]))
        } catch { throw .io }
        guard HMACSHA256.isEqual(code, Array(bytes[FileHeader.authenticatedSize...])) else {
            throw damaged(.fileHeader, inode.number, "not authentic")
        }
        return (header, keys)
    }

    private func fileKeys(_ header: FileHeader, _ inode: Inode) throws(Errno) -> [FileKeys] {
        let zoneKeys = try keys(inode.zone)
        var keys: [FileKeys] = []
        for slot in header.slots {
            let dek: SecretKey
            do { dek = try zoneKeys.unwrap(slot) } catch {
                throw damaged(.fileHeader, inode.number, "DEK slot: \(error.code.rawValue)")
            }
            do { keys.append(try FileKeys(version: slot.version, dek: dek, file: header.file)) } catch { throw .io }
        }
        return keys
    }

    /// The size of a file that was not closed: what the lower length says, or the last page's leader, whichever is more.
    private func recoverSize(
        _ loaded: LoadedFile, _ inode: Inode, _ descriptor: Descriptor, _ length: UInt64
    ) throws(Errno) -> UInt64 {
        let pages = length / UInt64(Geometry.pageSize)
        guard pages > 0 else { return 0 }
        let last = PageIndex(rawValue: pages - 1)
        let capacity = Geometry.capacity(of: last)
        let told = min(Int(length % UInt64(Geometry.pageSize)), capacity)
        let offset = Geometry.leaderOffset(of: last) + UInt64(PageLeader.versionOffset)
        let leader = try Lower.readValue(descriptor, at: offset, initial: UInt32(0))
        // The leader is authenticated when the page is read; until then it decides nothing but where the file ends.
        let used = min(PageLeader(versionAndLength: UInt32(littleEndian: leader)).usedLength, capacity)
        if leader == 0, told == 0 {
            let start = Geometry.plainStart(of: last)
            return loaded.header.size > start && loaded.header.size <= start + UInt64(capacity)
                ? loaded.header.size : start + UInt64(capacity)
        }
        return Geometry.plainStart(of: last) + UInt64(max(told, used))
    }
}
