import CLinux
import Storage
import Synchronization
import VolumeFormat

/// Replaces every DEK of a zone's files that is due, and seals again what they sealed: contents, attributes;
/// link targets by the newest metadata key. Directories keep their DEKs, and so do names.
///
/// Files of several pages go in batches, so that the flushes between the steps are few.
final class ReencryptSweep: SweepVisitor {
    private let volume: Volume
    private let zone: ZoneID
    /// `nil` where files are left alone.
    private let due: DueDEKs?
    /// Directory or file that it is limited to.
    private let scope: UniqueID?
    private let control: SweepControl
    private let threads: Int
    var isForEverything: Bool { scope == nil }
    // One batch for each thread; a thread uses its own.
    private let batches: Mutex<[Int: [Work]]>
    private let reencrypted = Atomic<UInt64>(0)
    private let seen = Mutex<Set<InodeKey>>([])
    private let linked = LinkedNames()

    private struct Work {
        let inode: Inode
        let content: FileContent
        let version: KeyVersion
        let isStored: Bool
        /// Its old DEKs have to go before it can have a new one.
        let isFull: Bool
        /// For reports: a plaintext path is made when one is due, and not kept while the sweep waits.
        let entry: SweepEntry
    }

    private static let batchFiles = 64
    private static let batchBytes: UInt64 = 64 << 20
    private static let chunkPages = 256
    /// Larger files are sealed by several threads.
    private static let largeBytes: UInt64 = 32 << 20

    init(
        _ volume: Volume, _ zone: ZoneID, _ due: DueDEKs?, scope: UniqueID?, _ control: SweepControl, threads: Int
    ) {
        self.volume = volume
        self.zone = zone
        self.due = due
        self.scope = scope
        self.control = control
        self.threads = threads
        batches = Mutex([:])
    }

    /// Files whose contents are under new DEKs now.
    var count: UInt64 { reencrypted.load(ordering: .relaxed) }

    func wants(_ zone: ZoneID) -> Bool { zone == self.zone }
    func visit(_ directory: SweepDirectory) throws(Errno) { control.count { $0.directories += 1 } }

    /// A file with several names is done once.
    private func isSecondName(_ content: FileContent) throws(Errno) -> Bool {
        let info = try content.lowerAttributes()
        return info.st_nlink > 1 && !seen.withLock { $0.insert(InodeKey(info)).inserted }
    }

    private func isInScope(_ entry: SweepEntry) throws(Errno) -> Bool {
        guard let scope, case .named(let directory, _) = entry else { return true }
        var current = directory
        while current.header.directory != scope {
            // A directory that moved meanwhile was visited again by its inode, and knows nothing of what is above it.
            guard let parent = current.parent else {
                let inode = try current.inode()
                return inode === volume.rootInode ? false : try volume.isBelow(scope, inode)
            }
            current = parent
        }
        return true
    }

    func visitFile(_ entry: SweepEntry, thread: Int) throws(Errno) {
        guard let due else { return }
        var unused = 0
        // Who is paused, for days perhaps, keeps no files open.
        guard control.pace(bytes: 0, lastUses: &unused, whilePaused: { finish(thread: thread) }) else { return }
        let inside = try isInScope(entry)
        let inode = try entry.inode(volume)
        guard inode.kind == .regular else { return volume.table.release(inode) }
        var kept = false
        defer { if !kept { volume.table.release(inode) } }
        try volume.waitForCreator(of: inode)
        let content = try volume.openContent(inode, forWriting: true)
        defer { if !kept { volume.closeContent(content) } }
        guard inside || content.lock.reading({ content.header.file }) == scope else { return }
        let start = SweepControl.nanoseconds
        if try isSecondName(content) { return }
        _ = try volume.gate(inode).lock.withLock { (_) throws(Errno) in try content.holdTimes() }
        let size = content.size
        let prepared: FileContent.Preparation
        do throws(Errno) { prepared = try content.prepareReencryption(due) } catch {
            release(inode, content)
            throw error
        }
        control.count {
            $0.files += 1
            $0.bytes.addUpToMaximum(size)
        }
        var uses = 0
        switch prepared {
        case .nothing:
            release(inode, content)
            control.count { $0.passed.addUpToMaximum(size) }
        case .done:
            release(inode, content)
            control.count { $0.passed.addUpToMaximum(size) }
            note(bytes: UInt64(Geometry.pageSize))
            _ = control.pace(
                bytes: UInt64(Geometry.pageSize), worked: SweepControl.nanoseconds - start, uses: volume.buffers.uses,
                lastUses: &uses, waitsForPause: false)
        case .stored(let version), .underway(let version), .full(let version):
            kept = true
            add(
                Work(
                    inode: inode, content: content, version: version, isStored: prepared == .stored(version),
                    isFull: prepared == .full(version), entry: entry), thread)
        }
    }

    private func note(bytes: UInt64) {
        reencrypted.add(1, ordering: .relaxed)
        control.count {
            $0.changed += 1
            $0.sealed += bytes
        }
    }

    private func release(_ inode: Inode, _ content: FileContent) {
        volume.gate(inode).lock.withLock { _ in content.releaseTimes() }
    }

    private func add(_ work: Work, _ thread: Int) {
        // A pause stops in the middle of a large one, and none waits for it then.
        if work.content.size >= Self.largeBytes { finish(thread: thread) }
        let isFull = batches.withLock { batches in
            batches[thread, default: []].append(work)
            let batch = batches[thread, default: []]
            return batch.count >= Self.batchFiles || batch.contains { $0.content.size >= Self.largeBytes }
                || batch.reduce(0) { $0 + $1.content.size } >= Self.batchBytes
        }
        if isFull { finish(thread: thread) }
    }

    func finish(thread: Int) {
        let batch = batches.withLock { $0.removeValue(forKey: thread) ?? [] }
        guard !batch.isEmpty else { return }
        var done = run(batch)
        let again = batch.filter { $0.isFull && done.contains($0.inode.generation) }
        done.subtract(again.map(\.inode.generation))
        done.formUnion(run(again.compactMap(prepareAgain)))
        for work in batch {
            release(work.inode, work.content)
            volume.closeContent(work.content)
            volume.table.release(work.inode)
        }
        for work in batch where done.contains(work.inode.generation) { note(bytes: 0) }
    }

    /// What had too many DEKs has the current one alone now, which is due.
    private func prepareAgain(_ work: Work) -> Work? {
        guard let due else { return nil }
        do throws(Errno) {
            let prepared = try work.content.prepareReencryption(due)
            switch prepared {
            case .nothing, .done: return nil
            case .stored(let version), .underway(let version), .full(let version):
                guard prepared != .full(version) else { throw .again }
                return Work(
                    inode: work.inode, content: work.content, version: version,
                    isStored: prepared == .stored(version), isFull: false, entry: work.entry)
            }
        } catch {
            note(error, work)
            return nil
        }
    }

    /// The steps of a batch. What fails keeps both DEKs, and is found again by the next sweep. Returns who is done.
    private func run(_ batch: [Work]) -> Set<UInt64> {
        var going: [Work] = []
        do throws(Errno) {
            if batch.contains(where: { $0.isStored }) { try flush(batch) }
        } catch {
            for work in batch { control.noteFailure("\(work.entry.path): \(error.message)") }
            return []
        }
        for work in batch where !control.isCancelled {
            do throws(Errno) {
                guard try work.content.beginReencryption(work.version) else { continue }
                guard try reseal(work) else { continue }
                // After the slot became current: they are sealed by it.
                _ = try volume.resealAttributes(work.inode)
                going.append(work)
            } catch { note(error, work) }
        }
        guard !going.isEmpty else { return [] }
        do throws(Errno) { try flush(going) } catch {
            for work in going { control.noteFailure("\(work.entry.path): \(error.message)") }
            return []
        }
        var done: Set<UInt64> = []
        for work in going {
            do throws(Errno) {
                if try work.content.endReencryption(work.version) { done.insert(work.inode.generation) }
            } catch { note(error, work) }
        }
        return done
    }

    private func note(_ error: Errno, _ work: Work) {
        if error == .keyRevoked || error == .noKey { control.cancel() }
        control.noteFailure("\(work.entry.path): \(error.message)")
    }

    private func flush(_ batch: [Work]) throws(Errno) {
        do throws(Errno) { try volume.flushAll() } catch {
            volume.noteLostFlush(batch.compactMap { $0.content.tree })
            throw error
        }
    }

    private final class Shared: Sendable {
        let next = Atomic<UInt64>(0)
        let failure = Mutex<Errno?>(nil)
    }

    /// All pages of a file, a large one by several threads. False when it was cut short.
    private func reseal(_ work: Work) throws(Errno) -> Bool {
        let shared = Shared()
        let (volume, control, content) = (volume, control, work.content)
        let step = UInt64(Self.chunkPages)
        // The others of a batch are finished first: see `visitFile`.
        let isLarge = content.size >= Self.largeBytes
        let body: @Sendable (Int) -> Void = { _ in
            let buffer = volume.buffers.takeForSweep()
            defer { volume.buffers.give(buffer) }
            var uses = volume.buffers.uses
            while shared.failure.withLock({ $0 }) == nil, !control.isCancelled {
                let first = shared.next.add(step, ordering: .relaxed).oldValue
                let start = SweepControl.nanoseconds
                do throws(Errno) {
                    guard let sealed = try content.resealPages(from: first, count: Self.chunkPages, buffer) else {
                        return
                    }
                    // A program may cut the file meanwhile.
                    let size = content.size
                    let at = min(first * UInt64(Geometry.payload), size)
                    control.count {
                        $0.sealed += UInt64(sealed)
                        $0.passed.addUpToMaximum(min(step * UInt64(Geometry.payload), size - at))
                    }
                    let worked = SweepControl.nanoseconds - start
                    // A revocation does not wait for who is paused.
                    buffer.wipe()
                    _ = control.pace(
                        bytes: UInt64(sealed), worked: worked, uses: volume.buffers.uses, lastUses: &uses,
                        waitsForPause: isLarge)
                } catch { shared.failure.withLock { $0 = error } }
            }
        }
        PlainThread.run(isLarge ? threads : 1, body)
        if let failure = shared.failure.withLock({ $0 }) { throw failure }
        return !control.isCancelled
    }

    /// Links with several names, once the walk has met all of them. Of a limited sweep only those whose names it all met.
    func resealLinked() {
        for group in linked.take() {
            defer {
                for name in group.names { volume.table.release(name.directory) }
                volume.table.release(group.inode)
            }
            guard !control.isCancelled, scope == nil || group.names.count >= group.count else { continue }
            do throws(Errno) {
                try volume.resealLinked(group)
                control.count { $0.changed += 1 }
            } catch {
                if error == .keyRevoked || error == .noKey { control.cancel() }
                guard error != .stale, error != .noEntry else { continue }
                control.noteFailure("(link, lower inode \(group.inode.number)): \(error.message)")
            }
        }
    }

    func visitOther(_ entry: SweepEntry, isLink: Bool, thread: Int) throws(Errno) {
        guard try isInScope(entry) else { return }
        control.count { $0.links += 1 }
        if isLink {
            if try volume.resealLink(entry, linked) { control.count { $0.changed += 1 } }
        } else {
            let inode = try entry.inode(volume)
            defer { volume.table.release(inode) }
            if try volume.resealAttributes(inode) > 0 { control.count { $0.changed += 1 } }
        }
    }
}
