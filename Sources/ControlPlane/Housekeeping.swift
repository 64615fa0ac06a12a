import CLinux
import Storage
import Synchronization
import VolumeEngine

/// What a daemon does now and then: gives memory back to the system once much of it lies free, or no program has read or written anything
/// for a while; ends the listings that programs have left.
package final class Housekeeping: Sendable {
    private static let intervalMicroseconds: UInt32 = 500_000
    /// After each so many looks without a read or a write: ten seconds.
    private static let quietLooks = 20
    /// A listing ends after one to two times so many looks: ten to twenty seconds.
    private static let listingLooks = 20
    /// After each so many looks one at the heap: two seconds.
    private static let heapLooks = 4
    /// So many bytes that lie free in memory are worth a trim.
    private static let worthTrimming = 16 << 20

    private let volume: Volume
    private let stopped = Atomic<Bool>(false)

    package init(_ volume: Volume) { self.volume = volume }

    package func start() {
        PlainThread.detach { [self] in
            var (uses, quiet, looks) = (0, 0, 0)
            var heap = HeapExcess()
            var mayTrim = true
            while !stopped.load(ordering: .acquiring) {
                usleep(Self.intervalMicroseconds)
                looks += 1
                if looks % Self.listingLooks == 0 { volume.listings.age() }
                let before = uses
                uses = volume.buffers.uses
                quiet = uses == before ? quiet + 1 : 0
                var trims = false
                if quiet == Self.quietLooks {
                    quiet = 0
                    trims = volume.buffers.shrink()
                }
                // Counting takes a look at all that is free, while nobody is given any.
                if looks % Self.heapLooks == 0, heap.bytes() >= Self.worthTrimming { trims = true }
                guard trims, mayTrim else { continue }
                // Where the heap cannot be locked again, it is not unlocked a second time.
                mayTrim = linux_trim_heap() == 0
                heap = HeapExcess()
            }
        }
    }

    package func stop() { stopped.store(true, ordering: .releasing) }
}
