import CLinux
import Synchronization

/// Listings between one getdents(2) of a program and its next, the last read first. One that is not here is opened again.
///
/// At most one for each thread and directory, its last: so nobody reads on in records from before he began.
package final class Listings: Sendable {
    private static let capacity = 64

    private struct Left {
        let stream: DirectoryStream
        let reader: pid_t
        var isOld = false
    }

    // A leaf. Streams end outside it: that closes a descriptor.
    private let left = Mutex<[Left]>([])

    package var count: Int { left.withLock { $0.count } }

    /// What `reader` left at `offset`.
    func take(_ inode: Inode, at offset: Int64, for reader: pid_t) -> DirectoryStream? {
        left.withLock { left in
            guard
                let place = left.lastIndex(where: {
                    $0.reader == reader && $0.stream.inode === inode && $0.stream.offset == offset
                })
            else { return nil }
            return left.remove(at: place).stream
        }
    }

    func keep(_ stream: DirectoryStream, for reader: pid_t) {
        // A program of another name space of process numbers.
        guard reader != 0 else { return }
        let ended = left.withLock { left in
            let old =
                left.firstIndex { $0.reader == reader && $0.stream.inode === stream.inode }
                ?? (left.count < Self.capacity ? nil : 0)
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
}
