import CLinux
import Synchronization

/// Where files with several names were copied to, so that each gets one copy, by whichever of its names was met first.
final class SalvagedLinks: Sendable {
    private enum Copy {
        /// A thread is about to make it.
        case begun
        case made(SalvageDirectory.Place)
    }

    /// By lower inode number. Leaf lock.
    private let copies = Mutex<[UInt64: Copy]>([:])

    private static let waitMicroseconds: useconds_t = 200

    /// Where the copy is; `nil` when it is the caller's to make, who then calls `made` or `giveUp`. While another thread makes it, waits.
    func begin(_ number: UInt64) -> SalvageDirectory.Place? {
        while true {
            let (place, isMine) = copies.withLock { copies -> (SalvageDirectory.Place?, Bool) in
                switch copies[number] {
                case .made(let place): return (place, false)
                case .begun: return (nil, false)
                case nil:
                    copies[number] = .begun
                    return (nil, true)
                }
            }
            if place != nil || isMine { return place }
            usleep(Self.waitMicroseconds)
        }
    }

    func made(_ number: UInt64, at place: SalvageDirectory.Place) { copies.withLock { $0[number] = .made(place) } }

    /// The copy that the caller began is another name's to make, unless it was made.
    func giveUp(_ number: UInt64) {
        copies.withLock { copies in
            if case .begun = copies[number] { copies[number] = nil }
        }
    }

    /// Lets the directories go.
    func end() { copies.withLock { $0 = [:] } }
}
