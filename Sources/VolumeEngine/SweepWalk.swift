import CLinux
import Storage
import Synchronization
import VolumeFormat

/// What a sweep does with what it finds. Called from several threads; an error counts against the object alone, and ENOENT and
/// ESTALE say that it went away or moved.
protocol SweepVisitor: AnyObject, Sendable {
    /// A directory, before what is in it.
    func visit(_ directory: SweepDirectory) throws(Errno)
    /// A regular file.
    func visitFile(_ entry: SweepEntry, thread: Int) throws(Errno)
    /// A symbolic link, or a special file.
    func visitOther(_ entry: SweepEntry, isLink: Bool, thread: Int) throws(Errno)
    /// A thread has nothing more to do in this pass.
    func finish(thread: Int)
    /// Whether what belongs to a zone is of interest. Directories of others are walked all the same.
    func wants(_ zone: ZoneID) -> Bool
    /// Whether a directory is looked into at all; by default each is.
    func enters(_ directory: SweepDirectory) throws(Errno) -> Bool
    /// Whether a directory that cannot be read, because its zone is closed, is left out; by default it ends the sweep.
    func leavesOut(closed zone: ZoneID) -> Bool
    /// Where an object lies makes no difference to what is done at it; by default it may.
    var isForEverything: Bool { get }
}

extension SweepVisitor {
    func enters(_ directory: SweepDirectory) throws(Errno) -> Bool { true }
    func leavesOut(closed zone: ZoneID) -> Bool { false }
    var isForEverything: Bool { false }
}

private final class PassedOver: Sendable {
    let count = Atomic<Int>(0)
}

/// Where a sweep met an object.
enum SweepEntry {
    case named(SweepDirectory, [CChar])
    /// It moved while the tree was walked.
    case moved(Inode)

    var path: String {
        switch self {
        case .named(let directory, let name): directory.path(name)
        case .moved(let inode): "(moved meanwhile, lower inode \(inode.number))"
        }
    }

    var zone: ZoneID {
        switch self {
        case .named(let directory, _): directory.zone
        case .moved(let inode): inode.zone
        }
    }

    /// The inode object, with one more reference for the caller.
    func inode(_ volume: Volume) throws(Errno) -> Inode {
        switch self {
        case .named(let directory, let name): return try volume.sweptInode(directory, try directory.inode(), name)
        case .moved(let inode):
            volume.table.retain(inode)
            return inode
        }
    }

    func open(_ volume: Volume, flags: Int32) throws(Errno) -> Descriptor {
        switch self {
        case .named(let directory, let name): try directory.place.open(name, flags: flags)
        case .moved(let inode): try volume.open(inode, flags: flags)
        }
    }
}

/// Walks the lower tree with several threads. Memory is bounded: names wait in chunks, and where many wait already, a thread goes
/// on with what it has found.
///
/// Programs may change the tree meanwhile. Whatever was there before the walk, stays there, and is not moved, is visited; what was
/// moved is visited at the end, until nothing that was not looked at since has moved, and no move is under way. What is made meanwhile is not of
/// interest: whoever starts a sweep has installed the new keys before.
struct SweepWalk<Visitor: SweepVisitor>: Sendable {
    let volume: Volume
    let visitor: Visitor
    let control: SweepControl
    /// Begun before the walk.
    let moves: MoveLog.List
    var threads = 2
    /// Where to begin; the volume's root otherwise.
    var start: SweepDirectory?
    /// False where `Volume.placing` is held, or moves are the caller's affair.
    var waitsForMoves = true

    /// Entries that were gone, or not where they were looked for.
    private let passedOver = PassedOver()

    private enum Item {
        case directory(SweepDirectory?, [CChar])
        case found(SweepDirectory)
        case entries(SweepDirectory, [Found])
    }

    private struct Found {
        let name: [CChar]
        let type: UInt8
    }

    private static var waitingChunks: Int { 256 }
    private static var waitingDirectories: Int { 65_536 }
    private static var maximumRounds: Int { 1000 }

    /// Visits everything once.
    func run() {
        walk(from: start.map { .found($0) } ?? .directory(nil, []))
        // Files and directories that were looked at since they had moved: nothing is left to do at them, wherever they go, so that a program
        // that renames for ever keeps no sweep from its end. What gets the number of one that is gone was made since the sweep began.
        var settled: Set<InodeKey> = []
        for _ in 0..<Self.maximumRounds where !control.isCancelled {
            let (inodes, missed) = takeMoves(settled)
            if missed { walkAgain() }
            if inodes.isEmpty, !missed { return }
            for inode in inodes {
                if revisit(inode) { settled.insert(inode.key) }
                volume.table.release(inode)
            }
            visitor.finish(thread: 0)
        }
        if !control.isCancelled { control.noteFailure("/: names move about all the time") }
    }

    /// A move is noted after it was made: where none is that has to be looked at, those that are under way come to their end first.
    private func takeMoves(_ settled: Set<InodeKey>) -> (inodes: [Inode], missed: Bool) {
        let (inodes, missed) = takeUnsettled(settled)
        guard inodes.isEmpty, !missed, waitsForMoves else { return (inodes, missed) }
        volume.placing.writing {}
        return takeUnsettled(settled)
    }

    private func takeUnsettled(_ settled: Set<InodeKey>) -> (inodes: [Inode], missed: Bool) {
        let (inodes, missed) = moves.take()
        let unsettled = inodes.filter { !settled.contains($0.key) }
        for inode in inodes where settled.contains(inode.key) { volume.table.release(inode) }
        return (unsettled, missed)
    }

    /// From where it began. A directory that was listed to its end is opened anew.
    private func walkAgain() {
        guard let start else { return walk(from: .directory(nil, [])) }
        do throws(Errno) { walk(from: .found(try volume.sweptDirectory(try start.inode()))) } catch {
            note(error, start.path())
        }
    }

    /// True where it need not be done again. Of a link the names count, too.
    private func revisit(_ inode: Inode) -> Bool {
        guard !control.isCancelled else { return false }
        switch inode.kind {
        case .directory:
            do throws(Errno) {
                let before = passedOver.count.load(ordering: .relaxed)
                walk(from: .found(try volume.sweptDirectory(inode)))
                // What was passed over comes again by its own move, or by that of a directory above it.
                return visitor.isForEverything && passedOver.count.load(ordering: .relaxed) == before
            } catch { note(error, "(moved meanwhile, lower inode \(inode.number))") }
        case .regular where visitor.wants(inode.zone):
            return attempt(.moved(inode)) { (entry) throws(Errno) in try visitor.visitFile(entry, thread: 0) }
        case .symbolicLink where visitor.wants(inode.zone), .special where visitor.wants(inode.zone):
            attempt(.moved(inode)) { (entry) throws(Errno) in
                try visitor.visitOther(entry, isLink: inode.kind == .symbolicLink, thread: 0)
            }
        default: break
        }
        return false
    }

    private func walk(from first: Item) {
        let queue = SweepQueue<Item>()
        _ = queue.push(first)
        PlainThread.run(threads) { thread in
            while let item = queue.next() {
                if control.isCancelled { queue.end() } else { work(item, queue, thread, depth: 0) }
                queue.done()
            }
            visitor.finish(thread: thread)
        }
    }

    private func work(_ item: Item, _ queue: SweepQueue<Item>, _ thread: Int, depth: Int) {
        switch item {
        case .directory(let parent, let name):
            do throws(Errno) {
                guard let directory = try open(parent, name) else { return }
                try list(directory, queue, thread, depth: depth)
            } catch { note(error, parent?.path(name) ?? "/") }
        case .found(let directory):
            do throws(Errno) { try list(directory, queue, thread, depth: depth) } catch {
                note(error, directory.path())
            }
        case .entries(let directory, let found):
            for entry in found where !control.isCancelled { visit(entry, in: directory, thread) }
        }
    }

    /// `nil` where its zone is closed and the visitor leaves it out.
    private func open(_ parent: SweepDirectory?, _ name: [CChar]) throws(Errno) -> SweepDirectory? {
        do throws(Errno) { return try volume.sweptDirectory(parent, name) } catch {
            guard error == .keyRevoked || error == .noKey, let parent,
                let zone = try volume.storedZone(parent, name), visitor.leavesOut(closed: zone)
            else { throw error }
            return nil
        }
    }

    /// Reads a directory and hands out what is in it.
    private func list(
        _ directory: SweepDirectory, _ queue: SweepQueue<Item>, _ thread: Int, depth: Int
    ) throws(Errno) {
        guard try visitor.enters(directory) else { return }
        let isOurs = visitor.wants(directory.zone)
        if isOurs { try visitor.visit(directory) }
        let records = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 16)
        defer { records.deallocate() }
        while !control.isCancelled {
            let count = try Lower.readDirectory(directory.descriptor, into: records)
            if count == 0 { break }
            var below: [[CChar]] = []
            var others: [Found] = []
            LowerEntry.forEach(UnsafeRawBufferPointer(rebasing: records[..<count])) { entry in
                if entry.isReserved || entry.name.elementsEqual(ReservedName.lostAndFound.utf8) { return true }
                let name = entry.name.map { CChar(bitPattern: $0) } + [0]
                var type = entry.type
                if type == UInt8(DT_UNKNOWN) {
                    do throws(Errno) {
                        let info = try directory.place.stat(name)
                        type = UInt8((info.st_mode & mode_t(S_IFMT)) >> 12)
                    } catch {
                        note(error, directory.path(name))
                        return true
                    }
                }
                if type == UInt8(DT_DIR) { below.append(name) } else { others.append(Found(name: name, type: type)) }
                return true
            }
            for name in below {
                let item = Item.directory(directory, name)
                // Only so deep on this thread's stack.
                let mayWait = depth >= 64 || queue.push(item, limit: Self.waitingDirectories)
                if !mayWait { work(item, queue, thread, depth: depth + 1) } else if depth >= 64 { _ = queue.push(item) }
            }
            guard isOurs, !others.isEmpty else { continue }
            let chunk = Item.entries(directory, others)
            if !queue.push(chunk, limit: Self.waitingChunks) { work(chunk, queue, thread, depth: depth) }
        }
    }

    private func visit(_ found: Found, in directory: SweepDirectory, _ thread: Int) {
        attempt(.named(directory, found.name)) { (entry) throws(Errno) in
            if found.type == UInt8(DT_REG) {
                try visitor.visitFile(entry, thread: thread)
            } else {
                try visitor.visitOther(entry, isLink: found.type == UInt8(DT_LNK), thread: thread)
            }
        }
    }

    @discardableResult
    private func attempt(_ entry: SweepEntry, _ body: (SweepEntry) throws(Errno) -> Void) -> Bool {
        do throws(Errno) {
            do throws(Errno) { try body(entry) } catch {
                guard error == .stale, try volume.findAgain(entry) else { throw error }
                // It was remembered by a name that it has lost.
                try body(entry)
            }
            return true
        } catch {
            note(error, entry.path)
            return false
        }
    }

    private func note(_ error: Errno, _ path: @autoclosure () -> String) {
        // Gone is done; moved comes again.
        guard error != .noEntry, error != .stale else {
            passedOver.count.add(1, ordering: .relaxed)
            return
        }
        // Without keys nothing can go on.
        if error == .keyRevoked || error == .noKey { control.cancel() }
        control.noteFailure("\(path()): \(error.message)")
    }
}
