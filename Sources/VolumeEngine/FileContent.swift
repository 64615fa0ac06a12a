import CLinux
import Ciphers
import KeyManagement
import Storage
import Synchronization
import VolumeFormat

/// The content of a regular file while it is open: one for each inode, shared by all its handles.
///
/// Reads take `lock` shared, whatever changes the file takes it alone. What a crash may leave behind is told at each step;
/// FORMAT §9 has the argument as a whole.
package final class FileContent: @unchecked Sendable {
    // All variables are guarded by `lock`, except `openCount` (by the inode's gate) and `published`.
    package let inode: Inode
    let volume: Volume
    let lock = RWLock()

    /// The lower file; writable if `isWritable`.
    var descriptor: Descriptor
    var isWritable: Bool
    var header: FileHeader
    /// Keys of the header's slots, in the same order. Empty after a revocation, until the zone is open again and somebody asks.
    var keys: [FileKeys]
    /// All-zero pages read as zeros: the file is sparse, or a crash may have left some.
    var holesAllowed: Bool
    var stage: HeaderStage
    /// The lower length carries the size. Otherwise it is a whole number of pages, and the last page's leader carries it.
    var lengthTellsSize: Bool
    /// Something may lie behind the end, left by a crash or by a call that failed: it goes before anything else changes.
    var tailIsDoubtful = false
    /// A check found it damaged: whoever closes it leaves it to another try what a crash left in doubt.
    var staysDoubtful = false
    /// Old DEKs could not be made to go early: the next attempt is when nothing can be sealed any more.
    var roomIsRefused = false
    /// Pages that may still be sealed under the stored invocation bound.
    var invocationsLeft: UInt64 {
        get { leased.load(ordering: .relaxed) }
        set { leased.store(newValue, ordering: .relaxed) }
    }
    /// Plaintext of the page that the last write ended in: an append need not read it back.
    var edge = EdgePage()
    /// What lists the pages, on volumes that have it.
    let tree: PageTree?
    /// The file of the tree's nodes, once it was needed. Leaf lock.
    let treeFile = Mutex<Descriptor?>(nil)
    /// Whatever programs change in the pages: who sealed some under a shared lock looks whether it still may store them.
    var changes = ChangeLog()
    /// While a sweep writes to the file: the times that programs gave it, and how many changes there were then.
    var heldTimes: HeldTimes?
    var openCount = 1
    private let published = Atomic<UInt64>(0)
    // Changed by those who hold `lock` alone; `reserveInvocations` takes from it while it is held shared.
    private let leased = Atomic<UInt64>(0)
    let hasKeys = Atomic<Bool>(true)
    private let writers = Atomic<Bool>(false)
    private let failures = Atomic<UInt64>(0)

    /// What the lower storage holds as this file's header.
    enum HeaderStage {
        /// Nothing yet: the file was made just now.
        case unwritten
        /// A header that says "closed", with exact size and flags.
        case closed
        /// A closed header that should be stored again, because a crash left the file in doubt.
        case doubtful
        /// A header that says "open", and lacks a flag or an invocation bound that is about to be used.
        case stale
        /// A header that says "open"; the size in it may lag.
        case open
    }

    /// Plaintext bytes. Read without the lock, it is the size after some finished operation.
    package var size: UInt64 {
        get { published.load(ordering: .acquiring) }
        set { published.store(newValue, ordering: .releasing) }
    }

    /// How many flushes have failed; a handle compares it with what it has reported (see `FileHandle`).
    package var failureCount: UInt64 { failures.load(ordering: .acquiring) }
    func noteFailure() { failures.add(1, ordering: .acquiringAndReleasing) }

    var current: FileKeys { keys[header.currentIndex] }

    /// Takes `count` invocations from what the stored bound covers. False when it does not cover them. The caller holds `lock` shared.
    func reserveInvocations(_ count: UInt64) -> Bool {
        var left = leased.load(ordering: .relaxed)
        while left >= count {
            let (exchanged, original) = leased.compareExchange(
                expected: left, desired: left - count, ordering: .relaxed)
            if exchanged { return true }
            left = original
        }
        return false
    }

    /// A new, empty file on a lower file that was just created. `id`: its UUID, where it has one already.
    init(creating inode: Inode, in volume: Volume, descriptor: Descriptor, id: UniqueID? = nil) throws(Errno) {
        let zoneKeys = try volume.storingKeys(inode.zone)
        let id = if let id { id } else { try Volume.randomID() }
        do {
            let (slot, dek) = try zoneKeys.makeSlot(version: .first, now: Volume.now)
            tree = volume.trees.map { PageTree(creating: id, $0.budget) }
            keys = [try FileKeys(version: slot.version, dek: dek.key, file: id, isListed: tree != nil)]
            header = FileHeader(
                volume: volume.description.volume, file: id, zone: inode.zone, state: .open, size: 0, generation: 0,
                epoch: volume.epoch, tree: tree?.rootForHeader(isOpen: true), slots: [slot])
        } catch { throw .io }
        self.inode = inode
        self.volume = volume
        self.descriptor = descriptor
        isWritable = true
        holesAllowed = false
        stage = .unwritten
        lengthTellsSize = false
    }

    /// An existing file whose header was read and authenticated.
    init(_ loaded: LoadedFile, inode: Inode, volume: Volume, descriptor: Descriptor, isWritable: Bool) {
        self.inode = inode
        self.volume = volume
        self.descriptor = descriptor
        self.isWritable = isWritable
        header = loaded.header
        keys = loaded.keys
        if let root = loaded.header.tree, let trees = volume.trees {
            // One whose last nodes are not stored yet is in memory.
            tree =
                trees.find(inode.key, loaded.header.file)
                ?? PageTree(
                    root, of: loaded.header.file, pages: Geometry.pageCount(forSize: loaded.size),
                    isExplained: loaded.isExplained, trees.budget)
        } else {
            tree = nil
        }
        holesAllowed = loaded.holesAllowed
        stage = loaded.isDoubtful ? .doubtful : .closed
        tailIsDoubtful = loaded.isDoubtful
        lengthTellsSize = loaded.lengthTellsSize
        size = loaded.size
    }

    /// Somebody has opened it for writing since it was first opened: the kernel may hold pages that are not stored yet.
    var mayBeDirty: Bool { writers.load(ordering: .acquiring) }
    func noteWriter() { writers.store(true, ordering: .releasing) }

    /// Unwraps the DEKs again after a revocation. Called without `lock`, before each operation that needs keys.
    @inline(__always)
    func ensureKeys() throws(Errno) {
        if !hasKeys.load(ordering: .acquiring) { try restoreKeys() }
    }

    private func restoreKeys() throws(Errno) {
        try lock.writing { () throws(Errno) in
            guard keys.isEmpty else { return }
            keys = try volume.fileKeys(header, inode.number)
            hasKeys.store(true, ordering: .releasing)
        }
    }

    /// Within `lock`: the keys are there. A revocation may have come since `ensureKeys`.
    @inline(__always)
    func requireKeys() throws(Errno) {
        guard keys.isEmpty else { return }
        throw (try? volume.zone(inode.zone))?.refusal ?? .keyRevoked
    }

    /// Takes the keys and whatever plaintext is kept out of memory; waits for operations under way. False when something about the
    /// file could not be stored before. The caller holds the gate, and `lock` for writing.
    func forgetKeys() -> Bool {
        var isSettled = true
        // A write may have come in since the zone's files were settled.
        if !keys.isEmpty { do throws(Errno) { try settle() } catch { isSettled = false } }
        hasKeys.store(false, ordering: .releasing)
        keys = []
        edge.wipe()
        return isSettled
    }

    struct HeldTimes {
        var access: timespec
        var modification: timespec
        let changes: UInt64
    }

    /// fstat(2) of the lower file, with the times that programs gave it.
    func lowerAttributes() throws(Errno) -> stat {
        let (descriptor, held, changes) = lock.reading { (self.descriptor, heldTimes, self.changes.count) }
        var info = try Lower.stat(descriptor)
        if let held, held.changes == changes { info.st_mtim = held.modification }
        return info
    }
}

/// The plaintext of one page, for the next write to it.
struct EdgePage {
    private var bytes: UnsafeMutableRawPointer?
    private(set) var page: PageIndex?

    /// Copies the page's plaintext out, if it is the one that is kept.
    func load(_ page: PageIndex, into output: UnsafeMutableRawPointer) -> Bool {
        guard self.page == page, let bytes else { return false }
        output.copyMemory(from: bytes, byteCount: Geometry.capacity(of: page))
        return true
    }

    mutating func keep(_ page: PageIndex, _ plaintext: UnsafeRawPointer) {
        let target = bytes ?? .allocate(byteCount: Geometry.payload, alignment: 16)
        target.copyMemory(from: plaintext, byteCount: Geometry.capacity(of: page))
        bytes = target
        self.page = page
    }

    mutating func forget() { page = nil }

    /// Wipes and frees; the owner calls it before it goes.
    mutating func wipe() {
        if let bytes {
            linux_explicit_bzero(bytes, Geometry.payload)
            bytes.deallocate()
        }
        bytes = nil
        page = nil
    }
}
