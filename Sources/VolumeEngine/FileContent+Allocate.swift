import CLinux
import Storage
import VolumeFormat

/// fallocate(2)'s modes, as far as the kernel passes them to a FUSE file system.
package struct AllocateMode: OptionSet, Sendable {
    package var rawValue: Int32
    package init(rawValue: Int32) { self.rawValue = rawValue }
    package static let keepSize = AllocateMode(rawValue: FALLOC_FL_KEEP_SIZE)
    package static let punchHole = AllocateMode(rawValue: FALLOC_FL_PUNCH_HOLE)
    package static let zeroRange = AllocateMode(rawValue: FALLOC_FL_ZERO_RANGE)
}

extension FileContent {
    /// fallocate(2).
    package func allocate(_ mode: AllocateMode, at offset: UInt64, count: UInt64) throws(Errno) {
        guard count > 0 else { throw .invalid }
        guard count <= Geometry.maximumSize, offset <= Geometry.maximumSize - count else { throw .fileTooBig }
        guard mode.isSubset(of: [.keepSize, .punchHole, .zeroRange]) else { throw .notSupported }
        _ = try volume.keys(inode.zone)
        try ensureKeys()
        // Those at both ends of what is made zero, and the one in which the file ends, before and after.
        try changing(sealing: 4) { () throws(Errno) in
            guard isWritable else { throw .badDescriptor }
            try requireKeys()
            changes.noteAll()
            if mode.contains(.punchHole) {
                guard mode.contains(.keepSize), !mode.contains(.zeroRange) else { throw .notSupported }
                return try zero(from: offset, to: min(offset + count, size))
            }
            try reserve(from: offset, to: offset + count)
            if mode.contains(.zeroRange) {
                try zero(from: offset, to: min(offset + count, size))
                try reserve(from: offset, to: offset + count)
            }
            if !mode.contains(.keepSize), offset + count > size { try truncateLocked(to: offset + count) }
        }
    }

    /// Has the lower file system set blocks aside. They read as zeros, and so as holes of this file.
    private func reserve(from start: UInt64, to end: UInt64) throws(Errno) {
        let first = Geometry.page(at: start).rawValue * UInt64(Geometry.pageSize)
        let last = (Geometry.page(at: end - 1).rawValue + 1) * UInt64(Geometry.pageSize)
        // What a crash left behind the end is cut off before, and not what is reserved here.
        _ = try prepareHeader(sealing: 0, inPlace: false)
        try Lower.allocate(descriptor, mode: FALLOC_FL_KEEP_SIZE, at: first, count: last - first)
    }

    /// Makes a range read as zeros: whole pages become holes, parts of pages are rewritten.
    private func zero(from start: UInt64, to end: UInt64) throws(Errno) {
        guard start < end else { return }
        let atEnd = end == size
        let first = Geometry.page(at: start)
        let last = Geometry.page(at: end - 1)
        // One past the last page, so that nothing goes below zero.
        let from = first.rawValue + (covers(first, start, end, atEnd: atEnd) ? 0 : 1)
        let past = last.rawValue + (covers(last, start, end, atEnd: atEnd) ? 1 : 0)
        if from < past { markSparse() }
        _ = try prepareHeader(sealing: 2, inPlace: false)
        for page in Set([first, last]) where !covers(page, start, end, atEnd: atEnd) {
            try zeroPart(of: page, from: start, to: end)
        }
        if from < past { try punch(from...(past - 1), reachesEnd: atEnd && past == last.rawValue + 1) }
    }

    private func covers(_ page: PageIndex, _ start: UInt64, _ end: UInt64, atEnd: Bool) -> Bool {
        let begin = Geometry.plainStart(of: page)
        return start <= begin && (end >= begin + UInt64(Geometry.capacity(of: page)) || atEnd)
    }

    private func zeroPart(of page: PageIndex, from start: UInt64, to end: UInt64) throws(Errno) {
        let begin = Geometry.plainStart(of: page)
        let capacity = UInt64(Geometry.capacity(of: page))
        let from = Int(max(start, begin) - begin)
        let to = Int(min(end, begin + capacity) - begin)
        try rewritePage(page, used: Int(min(capacity, size - begin))) { plain in
            (plain + from).initializeMemory(as: UInt8.self, repeating: 0, count: to - from)
        }
    }

    private func punch(_ pages: ClosedRange<UInt64>, reachesEnd: Bool) throws(Errno) {
        edge.forget()
        if reachesEnd, !lengthTellsSize {
            // The last page's leader goes; the lower length has to tell the size from here on.
            try Lower.truncate(descriptor, to: Geometry.lowerLength(forSize: size))
            lengthTellsSize = true
        }
        var from = pages.lowerBound
        if from == 0 {
            // The header shares this page: its payload is overwritten instead.
            let zeros = [UInt8](repeating: 0, count: Geometry.pageSize - Geometry.headerSize)
            try unlistPages(0, 0) { (_) throws(Errno) in
                try zeros.withUnsafeBufferPointer { (zeros) throws(Errno) in
                    guard let start = zeros.baseAddress else { return }
                    try Lower.write(descriptor, from: start, count: zeros.count, at: UInt64(Geometry.headerSize))
                }
            }
            from = 1
        }
        guard from <= pages.upperBound else { return }
        let unit = UInt64(Geometry.pageSize)
        try unlistPages(from, pages.upperBound) { (piece) throws(Errno) in
            try Lower.allocate(
                descriptor, mode: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at: piece.lowerBound * unit,
                count: UInt64(piece.count) * unit)
        }
    }
}
