import CFuse
import Synchronization

/// Purges the nodes 1…`highest` from the kernel's cache, known or not, by a bare /dev/fuse.
final class NodePurge: Sendable {
    private static let threads = 4
    private static let share: UInt64 = 4096
    private let highest: UInt64
    private let next = Atomic<UInt64>(1)
    private let known = Atomic<Int>(0)

    init(highest: UInt64) { self.highest = highest }

    /// How many of them the kernel knew.
    func run(_ device: Int32) -> Int {
        let count = highest > Self.share ? Self.threads : 1
        let group = (0..<count).map { _ in JoinedThread.start { [self] in work(device) } }
        for thread in group { thread?.join() }
        return known.load(ordering: .relaxed)
    }

    private func work(_ device: Int32) {
        var count = 0
        while true {
            let start = next.add(Self.share, ordering: .relaxed).oldValue
            guard start <= highest else { break }
            for node in start...min(start + Self.share - 1, highest) where lethefs_device_purge(device, node) == 0 {
                count += 1
            }
        }
        known.add(count, ordering: .relaxed)
    }
}
