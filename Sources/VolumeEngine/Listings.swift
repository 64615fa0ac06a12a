import CLinux
import Storage
import Synchronization

/// Listings between one getdents(2) of a program and its next, the last read first. One that is not here is opened again.
///
/// At most one for each thread and directory, its last; a thread that goes on where another one was has the records read again. So nobody
/// is given records from before he began.
package final class Listings: Sendable {
    private let capacity: Int

    private struct Left {
        let stream: DirectoryStream
        /// 0 for a program of another name space of process numbers.
        let reader: pid_t
        var isOld = false

        func isOf(_ reader: pid_t) -> Bool { reader != 0 && self.reader == reader }
    }

    // A leaf. Streams end outside it: that closes a descriptor.
    private let left = Mutex<[Left]>([])

    init(capacity: Int) { self.capacity = capacity }

    package var count: Int { left.withLock { $0.count } }

    /// What `reader` left at `offset`, or else somebody.
    func take(_ inode: Inode, at offset: Int64, for reader: pid_t) throws(Errno) -> DirectoryStream? {
        guard offset != 0 else { return nil }
        let found = left.withLock { left -> Left? in
            func isThere(_ one: Left) -> Bool { one.stream.inode === inode && one.stream.offset == offset }
            guard
                let place = left.lastIndex(where: { $0.isOf(reader) && isThere($0) }) ?? left.lastIndex(where: isThere)
            else { return nil }
            return left.remove(at: place)
        }
        guard let found else { return nil }
        if !found.isOf(reader) { try found.stream.rewind() }
        return found.stream
    }

    func keep(_ stream: DirectoryStream, for reader: pid_t) {
        guard !DescriptorBudget.isSpent else { return }
        let ended = left.withLock { left in
            let own = left.firstIndex { $0.isOf(reader) && $0.stream.inode === stream.inode }
            let old = own ?? (left.count < capacity ? nil : 0)
            defer { left.append(Left(stream: stream, reader: reader)) }
            return old.map { left.remove(at: $0) }
        }
        withExtendedLifetime(ended) {}
    }

    /// Ends those that nobody has come back for since the last call.
    package func age() {
        let ended = left.withLock { left in
            let ended = left.filter(\.isOld)
            left.removeAll(where: \.isOld)
            for place in left.indices { left[place].isOld = true }
            return ended
        }
        withExtendedLifetime(ended) {}
    }

    func end() {
        let ended = left.withLock { left in
            defer { left = [] }
            return left
        }
        withExtendedLifetime(ended) {}
    }
}
