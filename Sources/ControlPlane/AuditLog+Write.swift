import Ciphers
import Storage

extension AuditLog {
    /// Writes what waits, and flushes it. True when all of it is durable.
    func write(_ state: inout State) -> Bool {
        guard !state.isClosed else { return false }
        defer { shown.withLock { $0 = Status(state) } }
        // Whoever holds `state` is the only one who takes from the queue.
        while let entry = queue.withLock({ $0.waiting.first }) {
            do {
                try Self.noteStrangers(&state)
                try Self.write(entry, &state)
            } catch {
                state.failures += 1
                return false
            }
            queue.withLock { queue in
                queue.waiting.removeFirst()
                guard queue.untold > 0 else { return }
                let fields = ["count": "\(queue.untold)", "reason": "the lower storage could not be written"]
                queue.waiting.append(Entry(time: AuditTime.now(), kind: .recordsLost, zone: nil, fields: fields))
                queue.untold = 0
            }
        }
        guard !state.isFlushed else { return true }
        do {
            try Lower.sync(state.file, dataOnly: true)
            state.isFlushed = true
            return true
        } catch {
            state.failures += 1
            return false
        }
    }

    /// One record at the end of the file. A write that fails half-way is undone.
    private static func write(_ entry: Entry, _ state: inout State) throws {
        let record = try AuditRecord(
            sequence: state.sequence + 1, time: entry.time, kind: entry.kind.rawValue, zone: entry.zone,
            fields: entry.fields, previous: state.hash)
        let bytes = (state.needsNewline ? [UInt8(ascii: "\n")] : []) + Array(record.line.utf8) + [UInt8(ascii: "\n")]
        state.isFlushed = false
        do throws(Errno) {
            try bytes.withUnsafeBufferPointer { (buffer) throws(Errno) in
                guard let start = buffer.baseAddress else { return }
                try Lower.write(state.file, from: start, count: buffer.count, at: state.end)
            }
            // What a failed write left behind may be longer.
            if state.tornEnd != nil { try Lower.truncate(state.file, to: state.end + UInt64(bytes.count)) }
        } catch {
            do throws(Errno) {
                try Lower.truncate(state.file, to: state.end)
                state.tornEnd = nil
            } catch {
                state.tornEnd = (try? Lower.stat(state.file)).map { UInt64($0.st_size) }
            }
            throw error
        }
        state.tornEnd = nil
        state.needsNewline = false
        state.end += UInt64(bytes.count)
        state.sequence = record.sequence
        state.hash = record.hash
        if entry.kind != .checkpoint { state.sinceCheckpoint += 1 }
    }

    /// Somebody else changed the file's length: the log goes on behind what is there, and says so.
    private static func noteStrangers(_ state: inout State) throws(Errno) {
        let found = UInt64(try Lower.stat(state.file).st_size)
        guard found != state.end, found != state.tornEnd else { return }
        let fields = ["what": "the log's length was changed", "expected": "\(state.end)", "found": "\(found)"]
        let last = found == 0 ? UInt8(ascii: "\n") : try Lower.readValue(state.file, at: found - 1, initial: UInt8(0))
        state.end = found
        state.tornEnd = nil
        state.needsNewline = last != UInt8(ascii: "\n")
        let damaged = Entry(time: AuditTime.now(), kind: .logDamaged, zone: nil, fields: fields)
        do { try write(damaged, &state) } catch { throw error as? Errno ?? .io }
    }
}
