import CLinux
import Storage
import Synchronization
import VolumeFormat

/// A lower inode that the kernel (or a child) knows.
///
/// It holds no descriptor of its own: it knows a parent and a stored name, and opens by them when asked, comparing the inode
/// number. So 100,000 known files cost 100,000 small objects and not as many descriptors.
package final class Inode: Sendable {
    /// File type, as in `st_mode & S_IFMT`.
    package enum Kind: UInt8, Sendable { case regular, directory, symbolicLink, special }

    let key: InodeKey
    package let kind: Kind
    // `zone` and `nextZone`. They differ while the object is on its way to another zone (see `willMove`).
    private let zoneNumber: Atomic<UInt32>
    private let nextZoneNumber: Atomic<UInt32>
    /// Differs from any other inode object's ever made in this mount.
    package let generation: UInt64
    /// What the kernel calls it.
    package let node: UInt64

    struct State {
        /// Where it was seen last; `nil` for the root.
        var location: Location?
        /// Held after the last known name is gone.
        var pinned: Descriptor?
        /// Where `pinned` is kept although the file has other names.
        var keptPin: KeptPins.Pin?
        /// Nodes of its page tree, after the last name is gone.
        var treeFile: Descriptor?
        /// Of a directory: descriptor and keys, while cached.
        var handle: DirectoryHandle?
        /// Of a directory: how often its header was replaced. A handle that was read before such a moment is not cached after it.
        var headerChanges: UInt32 = 0
        /// Of a regular file: its content, while it is open.
        var content: FileContent?
        /// The open content was found to be at home at `location`. On volumes with places (FORMAT §13).
        var isPlaceVerified = false
        var absentAttributes: AbsentAttributes = []
        var attributeChanges: UInt32 = 0
        /// For the clock that evicts handles.
        var recentlyUsed = false
        /// Of a directory: set-group-ID, which children inherit.
        var isSetgid = false

        /// A header took the place of the one that a cached handle was made from.
        mutating func headerChanged() {
            handle = nil
            headerChanges &+= 1
        }
    }

    /// A stored name in a directory. Keeps its parent in the table.
    struct Location {
        let parent: Inode
        /// NUL-terminated.
        let name: [CChar]
    }

    // Leaf lock: no call to the lower storage under it.
    let state: Mutex<State>
    // What the kernel counts, one for each child's location, one for each user in here. From zero to one, and from one to
    // zero, only under the table's shard.
    let references = Atomic<Int>(1)

    init(key: InodeKey, kind: Kind, zone: ZoneID, identity: InodeIdentity, location: Location?) {
        self.key = key
        self.kind = kind
        zoneNumber = Atomic(zone.rawValue)
        nextZoneNumber = Atomic(zone.rawValue)
        generation = identity.generation
        node = identity.node
        var state = State()
        state.location = location
        self.state = Mutex(state)
    }

    /// The zone that its contents belong to. Of a directory: the zone of its parent's entries, by which its attributes are shown.
    ///
    /// It changes when a tree is assigned to another zone: then it follows what the object's header says.
    var zone: ZoneID { ZoneID(rawValue: zoneNumber.load(ordering: .acquiring)) }

    /// True when revoking that zone has to take this object's keys and cached pages away.
    func belongs(to zone: ZoneID) -> Bool {
        zoneNumber.load(ordering: .acquiring) == zone.rawValue
            || nextZoneNumber.load(ordering: .acquiring) == zone.rawValue
    }

    /// It is about to belong to another zone, too: from here on the revocation of either finds it. Before that zone's keys are taken.
    func willMove(to zone: ZoneID) { nextZoneNumber.store(zone.rawValue, ordering: .sequentiallyConsistent) }

    /// It belongs to that zone, and to no other.
    func setZone(_ zone: ZoneID) {
        nextZoneNumber.store(zone.rawValue, ordering: .sequentiallyConsistent)
        zoneNumber.store(zone.rawValue, ordering: .sequentiallyConsistent)
    }

    /// The lower inode number.
    package var number: UInt64 { key.number }
}

/// What a new inode object is given by its table.
struct InodeIdentity {
    let generation: UInt64
    let node: UInt64
}

/// Names a lower inode.
struct InodeKey: Hashable, Sendable {
    let device: UInt64
    let number: UInt64

    init(_ info: stat) {
        device = UInt64(info.st_dev)
        number = UInt64(info.st_ino)
    }
}

extension Inode.Kind {
    init(mode: mode_t) {
        switch mode & mode_t(S_IFMT) {
        case mode_t(S_IFREG): self = .regular
        case mode_t(S_IFDIR): self = .directory
        case mode_t(S_IFLNK): self = .symbolicLink
        default: self = .special
        }
    }
}
