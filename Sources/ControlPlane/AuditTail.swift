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
    private let maximumScan: UInt64
    /// The sealed head is in the log: what comes after it was not sealed yet.
    var headFound = false

    /// So is the record that the host remembers; true where it remembers none.
    var rememberedFound = true

    /// A place in the log that somebody vouches for.
    private struct Place {
        var sequence: UInt64
        var hash: [UInt8]
        var end: UInt64

        init(_ head: AuditHead) { (sequence, hash, end) = (head.sequence, head.hash, head.end) }
        init(_ head: AuditLog.Head) { (sequence, hash, end) = (head.sequence, head.hash, head.end) }

        func isRecord(_ record: AuditRecord) -> Bool { record.sequence == sequence && record.hash == hash }
    }

    /// Reads from the later of two places on, the sealed head and what the host remembers: whoever made it had found the other in the log.
    /// From the beginning, in search of it, where one of them does not stand as it says.
    init(
        _ file: Descriptor, head: AuditHead?, remembered: AuditLog.Head?, maximumScan: UInt64
    ) throws(Errno) {
        self.maximumScan = maximumScan
        let places = (head: head.map(Place.init), remembered: remembered.map(Place.init))
        if let head = places.head { headFound = try Self.stands(head, in: file) }
        if let remembered = places.remembered {
            // Of hosts that have noted no offset.
            let isSame = remembered.sequence == places.head?.sequence && remembered.hash == places.head?.hash
            rememberedFound = try isSame ? headFound : Self.stands(remembered, in: file)
        }
        let start = max(headFound ? places.head?.end ?? 0 : 0, rememberedFound ? places.remembered?.end ?? 0 : 0)
        let isSearching = places.head != nil && !headFound || !rememberedFound
        if isSearching {
            try read(file, from: 0, places.head, places.remembered)
            // The other was not found so far: the log's end is known from the one that stands.
            guard isOverlong, end < start else { return }
            (last, torn, isOverlong) = (nil, [], false)
        }
        try read(file, from: start, places.head, places.remembered)
        guard last == nil else { return }
        last = try Self.record(before: start, in: file)
        end = start
    }

    private mutating func read(
        _ file: Descriptor, from offset: UInt64, _ head: Place?, _ remembered: Place?
    ) throws(Errno) {
        end = offset
        var lines = AuditLines(file, from: offset)
        while let line = try lines.next() {
            guard line.end - offset <= maximumScan else {
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
            if let head, head.isRecord(record) { headFound = true }
            if let remembered, remembered.isRecord(record) { rememberedFound = true }
        }
        if torn.last == UInt8(ascii: "\n") { torn.removeLast() }
    }

    private static func stands(_ place: Place, in file: Descriptor) throws(Errno) -> Bool {
        guard place.end > 0, let record = try record(before: place.end, in: file) else { return false }
        return place.isRecord(record)
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
