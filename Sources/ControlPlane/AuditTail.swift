import Ciphers
import Storage

/// Where a log ends: what a process that appends has to know of it.
struct AuditTail {
    /// The last record; `nil` in a log that has none.
    var last: AuditRecord?
    /// Offset behind it.
    var end: UInt64 = 0
    /// Bytes behind it that are no record, without a newline at their end: a write that a crash cut off.
    var torn: [UInt8] = []
    /// More than a crash leaves: bytes that are no record, or more records than a mount reads.
    var isOverlong = false
    /// What a crash can leave is one record.
    private static let maximumTorn = 1 << 20
    /// Whoever writes the lower storage could have a mount read for hours.
    private static let maximumScan: UInt64 = 256 << 20
    /// The sealed head is in the log: what comes after it was not sealed yet.
    var headFound = false

    /// So is the record that the host remembers; true where it remembers none.
    var rememberedFound = true

    /// Reads from the sealed head on, where it stands as it says and is what the host remembers, and from the beginning otherwise.
    init(_ file: Descriptor, head: AuditHead?, remembered: AuditLog.Head? = nil) throws(Errno) {
        let isSame = remembered.map { $0.sequence == head?.sequence && $0.hash == head?.hash } ?? true
        if let head, isSame, try Self.stands(head, in: file) {
            try read(file, from: head.end)
            headFound = true
            if last == nil {
                last = try Self.record(before: head.end, in: file)
                end = head.end
            }
            return
        }
        rememberedFound = remembered == nil
        try read(file, from: 0, head, remembered)
    }

    private mutating func read(
        _ file: Descriptor, from offset: UInt64, _ head: AuditHead? = nil, _ remembered: AuditLog.Head? = nil
    ) throws(Errno) {
        end = offset
        var lines = AuditLines(file, from: offset)
        while let line = try lines.next() {
            guard line.end - offset <= Self.maximumScan else {
                isOverlong = true
                break
            }
            guard let record = AuditRecord(line: line.bytes), (try? record.computedHash()) == record.hash else {
                torn += line.bytes
                if line.isComplete { torn.append(UInt8(ascii: "\n")) }
                if torn.count > Self.maximumTorn { (torn, isOverlong) = ([], true) }
                continue
            }
            // A complete record whose newline alone is missing counts: nothing of it is lost.
            last = record
            end = line.end
            torn = []
            if let head, record.sequence == head.sequence, record.hash == head.hash { headFound = true }
            if let remembered, record.sequence == remembered.sequence, record.hash == remembered.hash {
                rememberedFound = true
            }
        }
        if torn.last == UInt8(ascii: "\n") { torn.removeLast() }
    }

    private static func stands(_ head: AuditHead, in file: Descriptor) throws(Errno) -> Bool {
        guard let record = try record(before: head.end, in: file) else { return false }
        return record.sequence == head.sequence && record.hash == head.hash
    }

    /// The record whose newline ends at `end`.
    private static func record(before end: UInt64, in file: Descriptor) throws(Errno) -> AuditRecord? {
        let count = min(end, UInt64(AuditRecord.maximumLine))
        guard count > 1 else { return nil }
        var bytes = [UInt8](repeating: 0, count: Int(count))
        let got = try bytes.withUnsafeMutableBufferPointer { (buffer) throws(Errno) in
            guard let start = buffer.baseAddress else { return 0 }
            return try Lower.read(file, into: start, count: buffer.count, at: end - count)
        }
        guard got == Int(count), bytes.last == UInt8(ascii: "\n") else { return nil }
        bytes.removeLast()
        let start = bytes.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
        guard let record = AuditRecord(line: Array(bytes[start...])),
            (try? record.computedHash()) == record.hash
        else { return nil }
        return record
    }
}
