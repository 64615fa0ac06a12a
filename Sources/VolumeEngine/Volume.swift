import CLinux
import Ciphers
import KeyManagement
import Storage
import Synchronization
import VolumeFormat

/// A mounted volume: the plaintext view of a lower tree.
///
/// Every operation is called on some thread, does its own I/O and returns; nothing here waits for the kernel or an HSM.
///
/// Lock order, from outer to inner: `placing` → `keyUse` → `TreeTable.storing` → an attribute gate → a file's gate → its content lock → handle cache → inode state → leaf locks (table shard,
/// zone, cipher contexts). Inode state and leaves are never held over I/O.
/// On volumes with places: a file's gate → place gates, in order → its content lock.
package final class Volume: Sendable {
    /// What a mount is asked for.
    package struct Options: Sendable {
        package var readOnly = false
        /// Directory handles kept; bounded by the descriptors that the process may have.
        package var handleCapacity = 1024
        /// Eight bytes that other processes see: the highest node number ever given out. They outlive the volume.
        package var sharedHighestNode: SharedWord?
        /// Files and directories are given the names under which they are found: a backup without their attributes was restored.
        package var acceptsPlaces = false
        /// GCM invocations that are stored ahead of their use at a time.
        package var invocationLease: UInt64 = 1 << 20
        /// Where a DEK stops sealing, well before 2^32 (SP 800-38D §8.3): a new one takes over.
        package var invocationLimit: UInt64 = 1 << 31
        package init() {}
    }

    package let description: VolumeDescription
    package let options: Options
    /// Finds files that were put back to an earlier time, where the operator wants that.
    package let manifest: Manifest?
    /// This mount's number, stored in each header it writes.
    package let epoch: UInt64
    /// Headers of this epoch or an older one may lag behind their pages.
    let lastCrashedEpoch: UInt64
    /// Root may give files to others and open any; a plain user may not.
    let isPrivileged: Bool
    /// What new files' group is, unless somebody says otherwise.
    let ownGroup = getegid()
    let lowerRoot: Descriptor
    let volumeDirectory: Descriptor
    let zones: ZoneTable
    let table: InodeTable
    let handles: HandleCache
    /// Page trees that are not stored yet, on volumes that have them.
    let trees: TreeTable?
    let aead: AEADPool
    package let buffers = BufferPool()
    package let listings: Listings
    package let rootInode: Inode
    /// Descriptors kept, in the life of this mount, of files that lost a name and have others.
    let pins = KeptPins()
    /// What changes places while a sweep walks the tree.
    let moves = MoveLog()
    /// Trees that are on their way from one zone to another.
    let transitions = Transitions()
    let shredding = ShreddedZones()
    /// Shared by those who put an entry into a directory; a directory changes its zone alone, so that none is made under the keys
    /// of the zone before. Outermost, before `keyUse`.
    let placing = RWLock()
    /// Shared by those who seal something outside a file's gate and store it; a change of keys waits for them. Outermost.
    let keyUse = RWLock()
    private let gates: [Gate]
    /// Files and directories say which names are theirs (FORMAT §13).
    package let hasPlaces: Bool
    private let placeGates: [Gate]
    /// Names that were accepted as they are found: see `Options.acceptsPlaces`.
    package let acceptedPlaces = Atomic<Int>(0)
    private let attributeGates: [Gate] = (0..<64).map { _ in Gate() }
    private let onDamage: @Sendable (Damage) -> Void
    /// Set when something could not be stored as it should: the unmount does not claim to be clean then.
    private let dirty = Atomic<Bool>(false)
    let lostFlush = Atomic<Bool>(false)
    let flushed: Descriptor
    /// One flush by `flushed` at a time, so that its outcome is noted before another begins. A leaf; held over that call alone.
    let flushing = Mutex<Void>(())
    /// Modes of a plain user's own files are lifted, changed and put back by one at a time. A leaf; held over those calls and an opening.
    let lifting = Mutex<Void>(())

    /// Serialises opening, creating and closing the content of one file; held over lower I/O, never over anything else.
    final class Gate: Sendable {
        let lock = Mutex<Void>(())
    }

    init(
        description: VolumeDescription, options: Options, epoch: UInt64, lastCrashedEpoch: UInt64,
        lowerRoot: Descriptor,
        volumeDirectory: Descriptor, zones: [Zone], manifest: Manifest? = nil,
        onDamage: @escaping @Sendable (Damage) -> Void
    ) throws(Errno) {
        self.manifest = manifest
        self.description = description
        hasPlaces = description.features.contains(.places)
        placeGates = hasPlaces ? (0..<64).map { _ in Gate() } : []
        self.options = options
        self.epoch = epoch
        self.lastCrashedEpoch = lastCrashedEpoch
        self.lowerRoot = lowerRoot
        self.volumeDirectory = volumeDirectory
        self.onDamage = onDamage
        isPrivileged = geteuid() == 0
        self.zones = ZoneTable(zones)
        table = InodeTable(sharedHighest: options.sharedHighestNode)
        handles = HandleCache(capacity: options.handleCapacity)
        listings = Listings(capacity: min(64, max(1, options.handleCapacity / 8)))
        gates = (0..<256).map { _ in Gate() }
        trees =
            description.features.contains(.pageTree)
            ? TreeTable(
                directory: try Lower.open(volumeDirectory, VolumeFiles.trees, flags: O_RDONLY | O_DIRECTORY),
                flushed: try Lower.open(lowerRoot, ".", flags: O_RDONLY | O_DIRECTORY)) : nil
        flushed = try Lower.open(lowerRoot, ".", flags: O_RDONLY | O_DIRECTORY, for: .daemon)
        do { aead = try AEADPool() } catch { throw .io }
        let info = try Lower.stat(lowerRoot)
        rootInode =
            table.acquire(InodeKey(info)) { identity in
                Inode(key: InodeKey(info), kind: .directory, zone: .root, identity: identity, location: nil)
            }.inode
        rootInode.state.withLock { $0.isSetgid = info.st_mode & mode_t(S_ISGID) != 0 }
    }

    // The table's number for the root keeps the root, and with it the lower directory open.
    deinit {
        trees?.clear(in: table)
        table.release(rootInode)
    }

    /// The zone with that id.
    package func zone(_ id: ZoneID) throws(Errno) -> Zone {
        guard let zone = zones.find(id) else { throw .noKey }
        return zone
    }

    package var allZones: [Zone] { zones.all }

    /// The inode that the kernel calls `node`.
    @inline(__always)
    package func inode(node: UInt64) -> Inode { table.nodes.inode(node) }

    func hasZone(_ id: ZoneID) -> Bool { zones.find(id) != nil }

    /// The keys of a zone for a program's operation, or why it is refused.
    func keys(_ id: ZoneID) throws(Errno) -> ZoneKeys { try zone(id).keys() }

    /// The keys of a zone for storing what was accepted before: also while it drains.
    func storingKeys(_ id: ZoneID) throws(Errno) -> ZoneKeys { try zone(id).storingKeys() }

    /// Keeps an attribute from being changed while a sweep seals it anew. Taken after `keyUse`, before a file's gate.
    func attributeGate(_ inode: Inode) -> Gate { attributeGates[Int(truncatingIfNeeded: inode.number & 63)] }

    /// Keeps an object's names, and what it says of them, from being changed by others: on a volume with places. No directory's
    /// handle is asked for under it, since loading one takes such a gate.
    func placeGate(_ number: UInt64) -> Gate { placeGates[Int(truncatingIfNeeded: number & 63)] }

    func gate(_ inode: Inode) -> Gate { gate(number: inode.number) }

    func gate(number: UInt64) -> Gate { gates[Int(truncatingIfNeeded: number & 255)] }

    /// Returns when nobody is about to store what was wrapped or sealed under keys that he got before the call.
    func waitForKeyUsers() {
        keyUse.writing {}
        for gate in gates { gate.lock.withLock { _ in } }
    }

    /// Tells the observer, and gives the error for the program.
    func damaged(_ object: Damage.Object, _ inode: UInt64, page: UInt64? = nil, _ reason: String) -> Errno {
        let damage = Damage(object, inode: inode, page: page, reason: reason)
        if !DamageScope.note(damage) { onDamage(damage) }
        return .io
    }

    /// Remembers that a header could not be brought up to date.
    func markDirty() { dirty.store(true, ordering: .releasing) }

    package var isDirty: Bool { dirty.load(ordering: .acquiring) }

    /// A flush failed in this mount: see `VolumeMount.requireFlushes`.
    var hasLostFlush: Bool { lostFlush.load(ordering: .sequentiallyConsistent) }

    /// Something could not be stored in this mount.
    package var hasUnstored: Bool { isDirty }

    /// A mount of this volume has ended in a crash at some time.
    /// The mount right before this one ended in a crash.
    package var hasFoundCrash: Bool { lastCrashedEpoch > 0 && lastCrashedEpoch + 1 == epoch }

    package var isAfterCrash: Bool { lastCrashedEpoch > 0 }

    /// Known inodes; `status` shows it.
    package var knownInodes: Int { table.count }

    /// Seconds since 1970.
    package static var now: UInt64 { UInt64(max(0, time(nil))) }

    /// Random bits for UUIDs and temporary names.
    static func randomID() throws(Errno) -> UniqueID {
        var words: (UInt64, UInt64) = (0, 0)
        do {
            try withUnsafeMutableBytes(of: &words) { (bytes) throws(CipherError) in try RandomBytes.fillPublic(bytes) }
        } catch { throw .io }
        return UniqueID(high: words.0, low: words.1)
    }
}
