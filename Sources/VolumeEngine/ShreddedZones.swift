import Synchronization
import VolumeFormat

/// The zones in which files are being deleted that are to be shredded, as the keyrings note them. Where there are none, which is nearly
/// always, asking costs one load.
///
/// Until they are all deleted no zone is made in such a zone, and the root of none that came from elsewhere is removed: its keys are
/// not among those that are to go.
final class ShreddedZones: Sendable {
    private let count = Atomic<Int>(0)
    // Leaf lock.
    private let zones = Mutex<Set<ZoneID>>([])

    var isEmpty: Bool { count.load(ordering: .acquiring) == 0 }

    func contains(_ zone: ZoneID) -> Bool { isEmpty ? false : zones.withLock { $0.contains(zone) } }

    func set(_ new: Set<ZoneID>) {
        zones.withLock { zones in
            zones = new
            count.store(new.count, ordering: .releasing)
        }
    }
}
