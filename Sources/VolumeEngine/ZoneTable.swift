import Storage
import Synchronization
import VolumeFormat

/// The zones of a mounted volume by number. Numbers are given in order and never again, so they index a short array.
final class ZoneTable: Sendable {
    /// More zones than anybody needs, and few enough that a hostile directory of keyrings costs nothing.
    static let maximumCount = 4096

    // Leaf lock: held to copy a reference.
    private let zones: Mutex<[Zone?]>

    init(_ zones: [Zone]) {
        self.zones = Mutex([])
        for zone in zones { add(zone) }
    }

    func find(_ id: ZoneID) -> Zone? {
        zones.withLock { zones in Int(id.rawValue) < zones.count ? zones[Int(id.rawValue)] : nil }
    }

    func add(_ zone: Zone) {
        let index = Int(zone.id.rawValue)
        precondition(index < Self.maximumCount)
        zones.withLock { zones in
            while zones.count <= index { zones.append(nil) }
            zones[index] = zone
        }
    }

    var all: [Zone] { zones.withLock { $0.compactMap { $0 } } }
}
