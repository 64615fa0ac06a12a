import CLinux
import Storage
import Synchronization
import VolumeFormat

/// An open directory: reads lower records and gives plaintext names. Offsets are the lower file system's own.
package final class DirectoryStream: @unchecked Sendable {
    // Guarded by `lock`: programs may share a directory descriptor.
    private let lock = Mutex<Void>(())
    package let inode: Inode
    private let volume: Volume
    private let descriptor: Descriptor
    private let records = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 16)
    private var used = 0
    private var position = 0
    /// Offset of the next record, as the program would ask for it.
    private var offset: Int64 = 0
    /// Entries given since the beginning.
    private var given = 0
    /// Entries of a listing that come with attributes. Whoever lists a directory larger than that hardly wants them all, and the kernel
    /// would keep an inode for each.
    private static let attributesGiven = 16_384

    init(_ inode: Inode, volume: Volume, descriptor: Descriptor) {
        self.inode = inode
        self.volume = volume
        self.descriptor = descriptor
    }

    /// One entry for a program.
    package struct Item {
        /// A NUL follows it in memory.
        package let name: UnsafeRawBufferPointer
        package let number: UInt64
        /// DT_REG and so on.
        package let type: UInt8
        package let next: Int64
        /// The stored name; `nil` for "." and "..".
        let stored: UnsafeRawBufferPointer?
        /// Far down a large directory: it is given without attributes.
        package let isLate: Bool

        package var isDot: Bool { stored == nil }
    }

    /// Calls `body` for the entries from `start` on, until it returns false: then that entry is given again next time.
    package func read(from start: Int64, _ body: (Item) throws(Errno) -> Bool) throws(Errno) {
        let handle = try volume.admitted(inode)
        try lock.withLock { (_) throws(Errno) in
            defer { wipeName() }
            if start != offset || start == 0 {
                try Lower.seekDirectory(descriptor, to: start)
                (used, position, offset) = (0, 0, start)
                if start == 0 { given = 0 }
            }
            while let record = try nextRecord() {
                guard try give(record, handle, body) else { return }
                advance(record)
            }
        }
    }

    /// The record at `position`, which stays there until `advance`.
    private func nextRecord() throws(Errno) -> LowerEntry? {
        if position >= used {
            used = try Lower.readDirectory(descriptor, into: records)
            position = 0
            if used == 0 { return nil }
        }
        var after = position
        guard let entry = LowerEntry.parse(UnsafeRawBufferPointer(rebasing: records[..<used]), &after) else {
            throw .io
        }
        pending = after
        return entry
    }

    private var pending = 0

    private func advance(_ record: LowerEntry) {
        position = pending
        offset = record.next
        given += 1
    }

    private func give(
        _ record: LowerEntry, _ handle: DirectoryHandle, _ body: (Item) throws(Errno) -> Bool
    ) throws(Errno) -> Bool {
        if record.isDot {
            return try body(
                Item(
                    name: record.name, number: record.number, type: record.type, next: record.next, stored: nil,
                    isLate: false))
        }
        let plain = UnsafeMutableRawBufferPointer(start: nameBuffer, count: 320)
        switch handle.decode(record.name, into: plain) {
        case .reserved: return true
        case .damaged:
            // Nothing to show for it; `check` names it.
            _ = volume.damaged(.name, record.number, "not made under this directory's key")
            return true
        case .name(let count):
            plain[count] = 0
            return try body(
                Item(
                    name: UnsafeRawBufferPointer(rebasing: plain[..<count]), number: record.number, type: record.type,
                    next: record.next, stored: record.name, isLate: given >= Self.attributesGiven))
        }
    }

    private let nameBuffer = UnsafeMutableRawPointer.allocate(byteCount: DirectoryStream.nameRoom, alignment: 16)
    private static let nameRoom = 320
    private func wipeName() { linux_explicit_bzero(nameBuffer, Self.nameRoom) }

    /// The entry's inode with one more reference, and its attributes; `nil` when it has gone meanwhile.
    package func entry(_ item: Item) throws(Errno) -> Entry? {
        guard let stored = item.stored else { return nil }
        let handle = try volume.handle(inode)
        var name = stored.map { CChar(bitPattern: $0) }
        name.append(0)
        do throws(Errno) {
            return try volume.adopt(try Lower.stat(handle.descriptor, name), inode, handle, name)
        } catch {
            guard error == .noEntry else { throw error }
            return nil
        }
    }

    /// fsync(2) of a directory.
    package func sync(dataOnly: Bool) throws(Errno) { try Lower.sync(descriptor, dataOnly: dataOnly) }

    deinit {
        records.deallocate()
        wipeName()
        nameBuffer.deallocate()
    }
}

extension Volume {
    /// opendir(3). The header is read first: a directory that cannot be read fails here.
    package func openDirectory(_ inode: Inode) throws(Errno) -> DirectoryStream {
        try admit(inode)
        return DirectoryStream(inode, volume: self, descriptor: try open(inode, flags: O_RDONLY | O_DIRECTORY))
    }
}
