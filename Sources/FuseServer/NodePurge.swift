import CFuse
import Storage
import Synchronization

/// Purges the nodes 1…`highest` from the kernel's cache, known or not, by a bare /dev/fuse.
struct NodePurge {
    /// The nodes that the kernel knew, and those that it did not let go of in time.
    struct Outcome {
        var known = 0
        var left = 0
    }

    let highest: UInt64
    /// Programs may hold up more nodes than there are threads for.
    private static let mostAttempts = 8

    func run(_ device: Int32) -> Outcome {
        let known = Counter()
        var left = 0
        var nodes = 1..<highest + 1
        for _ in 0..<Self.mostAttempts where !nodes.isEmpty {
            let first = nodes.lowerBound
            let work = PatientWork(Int(clamping: nodes.count)) { index in
                if lethefs_device_purge(device, first + UInt64(index)) == 0 { known.value.add(1, ordering: .relaxed) }
            }
            if work.run() == 0 { return Outcome(known: known.value.load(ordering: .relaxed), left: left) }
            nodes = first + UInt64(work.notBegun.lowerBound)..<nodes.upperBound
            left += work.hanging.count
        }
        return Outcome(known: known.value.load(ordering: .relaxed), left: left + nodes.count)
    }

    private final class Counter: Sendable {
        let value = Atomic<Int>(0)
    }
}
