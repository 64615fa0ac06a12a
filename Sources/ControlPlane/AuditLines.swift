import Storage

/// Reads a log line by line, however long it is. Lines beyond the bound come in pieces.
package struct AuditLines {
    package struct Line {
        /// Without its newline.
        package var bytes: [UInt8]
        /// Offset behind the line, its newline included.
        package var end: UInt64
        /// False for bytes at the end that no newline follows, and for a piece of a longer line.
        package var isComplete: Bool
    }

    private static let chunk = 256 << 10
    private let file: Descriptor
    private var offset: UInt64
    private var buffer: [UInt8] = []
    private var position = 0
    private var atEnd = false

    package init(_ file: Descriptor, from offset: UInt64 = 0) {
        self.file = file
        self.offset = offset
    }

    /// The next line; `nil` at the end.
    package mutating func next() throws(Errno) -> Line? {
        while true {
            if let newline = buffer[position...].firstIndex(of: UInt8(ascii: "\n")) {
                defer { position = newline + 1 }
                return line(position..<newline, isComplete: true)
            }
            if buffer.count - position >= AuditRecord.maximumLine || (atEnd && position < buffer.count) {
                defer { position = buffer.count }
                return line(position..<buffer.count, isComplete: false)
            }
            if atEnd { return nil }
            try fill()
        }
    }

    private func line(_ range: Range<Int>, isComplete: Bool) -> Line {
        let behind = buffer.count - range.upperBound - (isComplete ? 1 : 0)
        return Line(bytes: Array(buffer[range]), end: offset - UInt64(behind), isComplete: isComplete)
    }

    private mutating func fill() throws(Errno) {
        buffer.removeFirst(position)
        position = 0
        var more = [UInt8](repeating: 0, count: Self.chunk)
        let at = offset
        let count = try more.withUnsafeMutableBufferPointer { (bytes) throws(Errno) in
            guard let start = bytes.baseAddress else { return 0 }
            return try Lower.read(file, into: start, count: bytes.count, at: at)
        }
        atEnd = count < Self.chunk
        offset += UInt64(count)
        buffer += more[..<count]
    }
}
