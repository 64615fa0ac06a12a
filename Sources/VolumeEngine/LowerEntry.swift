import CLinux
import Storage
import VolumeFormat

/// One record of getdents64(2).
struct LowerEntry {
    /// Without NUL.
    let name: UnsafeRawBufferPointer
    let number: UInt64
    /// Where the next record is.
    let next: Int64
    /// DT_REG and so on; DT_UNKNOWN where the lower file system does not say.
    let type: UInt8

    private static let nextOffset = 8
    private static let lengthOffset = 16
    private static let typeOffset = 18
    private static let nameOffset = 19

    /// A name that no program sees, "." and ".." among them.
    var isReserved: Bool {
        guard name.contains(UInt8(ascii: ".")) else { return false }
        let text = String(decoding: name, as: UTF8.self)
        return !text.hasPrefix(ReservedName.longEntry)
    }

    var isDot: Bool { name.count <= 2 && name.allSatisfy { $0 == UInt8(ascii: ".") } }

    /// Calls `body` for each record until it returns false.
    static func forEach(_ records: UnsafeRawBufferPointer, _ body: (LowerEntry) -> Bool) {
        var position = 0
        while let entry = parse(records, &position), body(entry) {}
    }

    /// Whether a directory that was just opened has no entries but "." and "..".
    static func areNone(in directory: Descriptor) throws(Errno) -> Bool {
        let records = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
        defer { records.deallocate() }
        var areNone = true
        while areNone {
            let used = try Lower.readDirectory(directory, into: records)
            if used == 0 { break }
            forEach(UnsafeRawBufferPointer(rebasing: records[..<used])) { entry in
                areNone = entry.isDot
                return areNone
            }
        }
        return areNone
    }

    /// The record at `position`, which then moves on; `nil` at the end.
    static func parse(_ records: UnsafeRawBufferPointer, _ position: inout Int) -> LowerEntry? {
        guard position + nameOffset < records.count else { return nil }
        let length = Int(records.loadUnaligned(fromByteOffset: position + lengthOffset, as: UInt16.self))
        guard length > nameOffset, position + length <= records.count else { return nil }
        let field = UnsafeRawBufferPointer(rebasing: records[(position + nameOffset)..<(position + length)])
        let count = field.firstIndex(of: 0) ?? field.count
        let entry = LowerEntry(
            name: UnsafeRawBufferPointer(rebasing: field[..<count]),
            number: records.loadUnaligned(fromByteOffset: position, as: UInt64.self),
            next: records.loadUnaligned(fromByteOffset: position + nextOffset, as: Int64.self),
            type: records[position + typeOffset])
        position += length
        return entry
    }
}
