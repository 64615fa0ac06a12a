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

    func run(_ device: Int32) -> Outcome {
        let known = Counter()
        let work = PatientWork(Int(clamping: highest)) { index in
            if lethefs_device_purge(device, UInt64(index) + 1) == 0 { known.value.add(1, ordering: .relaxed) }
        }
        let left = work.run()
        return Outcome(known: known.value.load(ordering: .relaxed), left: left)
    }

    private final class Counter: Sendable {
        let value = Atomic<Int>(0)
    }
}
