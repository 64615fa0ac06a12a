import CLinux
import Storage
import VolumeFormat

/// Reads a directory's lower records and gives plaintext names. Offsets are the lower file system's own. Used by one thread at a time.
package final class DirectoryStream: @unchecked Sendable {
    package let inode: Inode
    /// Behind the last entry that was given: where a program goes on.
    private(set) var offset: Int64
    // A volume keeps streams.
    private unowned let volume: Volume
    private let descriptor: Descriptor
    private let records = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 16)
    private var used = 0
    private var position = 0
    /// Entries given since the beginning.
    private var given = 0
    /// Entries of a listing that come with attributes. Whoever lists a directory larger than that hardly wants them all, and the kernel
    /// would keep an inode for each.
    private static let attributesGiven = 16_384

    init(_ inode: Inode, volume: Volume, descriptor: Descriptor, offset: Int64) {
        self.inode = inode
        self.volume = volume
        self.descriptor = descriptor
        self.offset = offset
    }

    /// One entry for a program.
    package struct Item {
        /// A NUL follows it in memory.
        package let name: UnsafeRawBufferPointer
        package let number: UInt64
        /// DT_REG and so on.
        package let type: UInt8
        package let next: Int64
        /// The stored name, and a NUL after it in memory; `nil` for "." and "..".
        let stored: UnsafeRawBufferPointer?
        /// Far down a large directory: it is given without attributes.
        package let isLate: Bool
        /// The directory's.
        let handle: DirectoryHandle

        package var isDot: Bool { stored == nil }
    }

    /// Calls `body` for one entry after the other, until it returns false: then that entry is given again next time.
    package func read(_ body: (Item) throws(Errno) -> Bool) throws(Errno) {
        let handle = try volume.admitted(inode)
        defer { wipeName() }
        while let record = try nextRecord() {
            guard try give(record, handle, body) else { return }
            position = pending
        }
    }

    /// Forgets what has been read and not given: it may be older than the reader who goes on.
    func rewind() throws(Errno) {
        try Lower.seekDirectory(descriptor, to: offset)
        (used, position) = (0, 0)
    }

    /// The record at `position`, which stays there until it is taken.
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

    private func give(
        _ record: LowerEntry, _ handle: DirectoryHandle, _ body: (Item) throws(Errno) -> Bool
    ) throws(Errno) -> Bool {
        var (name, stored) = (record.name, UnsafeRawBufferPointer?.none)
        if !record.isDot {
            let plain = UnsafeMutableRawBufferPointer(start: nameBuffer, count: Self.nameRoom)
            switch handle.decode(record.name, into: plain) {
            case .reserved: return true
            case .damaged:
                // Nothing to show for it; `check` names it.
                _ = volume.damaged(.name, record.number, "not made under this directory's key")
                return true
            case .name(let count):
                plain[count] = 0
                (name, stored) = (UnsafeRawBufferPointer(rebasing: plain[..<count]), record.name)
            }
        }
        let item = Item(
            name: name, number: record.number, type: record.type, next: record.next, stored: stored,
            isLate: given >= Self.attributesGiven, handle: handle)
        guard try body(item) else { return false }
        offset = record.next
        given += 1
        return true
    }

    private let nameBuffer = UnsafeMutableRawPointer.allocate(byteCount: DirectoryStream.nameRoom, alignment: 16)
    private static let nameRoom = 320
    private func wipeName() { linux_explicit_bzero(nameBuffer, Self.nameRoom) }

    deinit {
        records.deallocate()
        wipeName()
        nameBuffer.deallocate()
    }
}
