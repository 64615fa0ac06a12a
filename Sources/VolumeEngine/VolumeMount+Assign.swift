import KeyManagement
import Storage
import Synchronization
import VolumeFormat

/// Moving in: a tree goes from one zone to another while programs use it (FORMAT §10).
extension VolumeMount {
    /// Why a directory cannot go to another zone.
    package enum Unassignable: Sendable, Equatable {
        case volumeRoot
        case notDirectory
        /// It belongs to that zone.
        case sameZone
        /// Another tree is on its way; one at a time.
        case underWay
        /// One of the two zones is being shredded.
        case shredding
        /// So many files have names outside as well (or are symbolic links with several names); the paths are the first ones'.
        case namesOutside(count: UInt64, paths: [String])
    }

    /// The trees that are on their way, as the keyrings note them.
    package var assignments: [(zone: ZoneID, work: PendingWork)] {
        zoneKeyrings.flatMap { keyring in keyring.pending.filter { $0.kind == .assign }.map { (keyring.zone, $0) } }
    }

    /// After a keyring was stored: what is permitted follows what is noted.
    func updateTransitions() {
        let noted = keyrings.withLock { keyrings in
            keyrings.values.flatMap { keyring in
                keyring.pending.compactMap { Transition($0, in: keyring.zone) }
            }
        }
        volume.transitions.set(noted)
        let shredded = keyrings.withLock { keyrings in
            keyrings.values.filter { $0.pending.contains { $0.kind == .shred && $0.flags.contains(.paused) } }.map(
                \.zone)
        }
        volume.shredding.set(Set(shredded))
    }

    /// Looks whether a tree could go to another zone, and changes nothing. Returns the zone that it belongs to now.
    package func examineAssignment(_ directory: Inode, to destination: ZoneID?) throws(VolumeError) -> ZoneID {
        guard directory !== volume.rootInode else { throw .unassignable(.volumeRoot) }
        guard directory.kind == .directory else { throw .unassignable(.notDirectory) }
        let source: ZoneID
        let scope: UniqueID
        do throws(Errno) {
            let handle = try volume.admitted(directory)
            (source, scope) = (handle.zone, handle.header.directory)
            // Both are needed, and open.
            _ = try volume.keys(source)
            if let destination { _ = try volume.keys(destination) }
        } catch { throw .lower(error, "reading the directory") }
        guard source != destination else { throw .unassignable(.sameZone) }
        guard assignments.isEmpty else { throw .unassignable(.underWay) }
        try refuseShredding(source, destination)
        let work = PendingWork(assign: scope, from: source, started: 0)
        if let transition = Transition(work, in: destination ?? source) {
            try requireInsideNames(transition, directory)
        }
        return source
    }

    /// A shredding destroys the KEKs of one zone, and the headers of a tree on its way are wrapped by those of two.
    private func refuseShredding(_ source: ZoneID, _ destination: ZoneID?) throws(VolumeError) {
        for zone in [source, destination ?? source]
        where keyring(zone)?.pending.contains(where: { $0.kind == .shred }) == true {
            throw .unassignable(.shredding)
        }
    }

    /// Notes durably that a tree goes to `destination`: from here on nothing comes into it or leaves it, and a mount that finds the note
    /// goes on. Refused, and nothing changed, where files have names outside.
    package func beginAssignment(
        _ directory: Inode, to destination: ZoneID, rate: UInt32 = 0, flags: PendingWork.Flags = []
    ) throws(VolumeError) -> PendingWork {
        let source = try examineAssignment(directory, to: destination)
        let scope: UniqueID
        do throws(Errno) { scope = try volume.handle(directory).header.directory } catch {
            throw .lower(error, "reading the directory")
        }
        var work = PendingWork(assign: scope, from: source, started: Volume.now)
        work.rate = rate
        work.flags = flags
        try changeKeyring(destination) { (keyring, keys) throws(VolumeError) in
            // Nobody notes anything in any zone meanwhile.
            guard assignments.isEmpty else { throw .unassignable(.underWay) }
            try refuseShredding(source, destination)
            guard keyring.pending.count < PendingWork.maximumCount else { throw .keyring(.full) }
            keyring.pending.append(work)
            return keys
        }
        // Who was about to add a name without knowing of it has done so.
        volume.placing.writing {}
        if let transition = Transition(work, in: destination) {
            try requireInsideNames(transition, directory, orForget: work)
        }
        return work
    }

    /// Counts again, now that nothing goes in or out; the note goes if it is in vain. Nothing is converted yet.
    private func requireInsideNames(
        _ transition: Transition, _ directory: Inode, orForget work: PendingWork
    ) throws(VolumeError) {
        do throws(VolumeError) { try requireInsideNames(transition, directory) } catch {
            try forget(transition.destination) { $0 == work }
            throw error
        }
    }

    private func requireInsideNames(_ transition: Transition, _ directory: Inode) throws(VolumeError) {
        let (count, paths) = try outsideNames(transition, directory)
        guard count == 0 else { throw .unassignable(.namesOutside(count: count, paths: paths)) }
    }

    /// A count during which nothing moved.
    private func outsideNames(
        _ transition: Transition, _ directory: Inode
    ) throws(VolumeError) -> (count: UInt64, paths: [String]) {
        do throws(Errno) {
            for _ in 0..<Self.countsBesidePrograms {
                if let result = try countUnmoved(transition, directory, besidePrograms: true) { return result }
            }
            // Programs that move or link something wait, and what they did before is not counted as a move.
            let last = try volume.placing.writing { () throws(Errno) in
                try countUnmoved(transition, directory, besidePrograms: false)
            }
            if let last { return last }
        } catch { throw .lower(error, "counting names") }
        throw .incomplete(failed: 1, ["names move about all the time"])
    }

    /// Counts of names while programs go on, before they are made to wait for one.
    private static let countsBesidePrograms = 3

    /// `nil` where something moved meanwhile.
    private func countUnmoved(
        _ transition: Transition, _ directory: Inode, besidePrograms: Bool
    ) throws(Errno) -> (count: UInt64, paths: [String])? {
        let watch = volume.moves.begin()
        defer { volume.moves.end(watch, volume.table) }
        let visitor = try countNames(transition, directory)
        // What was moved meanwhile is noted when that has come to its end.
        if besidePrograms { volume.placing.writing {} }
        let (moved, missed) = watch.take()
        for inode in moved { volume.table.release(inode) }
        return moved.isEmpty && !missed ? visitor.result : nil
    }

    private func countNames(_ transition: Transition, _ directory: Inode) throws(Errno) -> OutsideNames {
        let path = volume.path(of: directory).map { "/" + String(decoding: $0, as: UTF8.self) } ?? ""
        let visitor = OutsideNames(volume, transition, path: path)
        let control = SweepControl()
        // A list of its own, that stays empty: moves are looked at by the caller.
        let moves = MoveLog.List()
        var walk = SweepWalk(volume: volume, visitor: visitor, control: control, moves: moves)
        walk.start = try volume.sweptDirectory(directory)
        walk.waitsForMoves = false
        walk.run()
        guard control.progress.failed == 0 else { throw .io }
        return visitor
    }

    /// Converts a noted tree. When all of it is the destination's, durably, the note becomes one of a re-encryption of the tree, which
    /// is returned: its DEKs were known under the source's keys. `nil` when it was interrupted; it can go on at any time.
    ///
    /// `directory`: the tree's own, where it is at hand; it is looked for otherwise, and was not counted by this mount.
    package func assign(
        _ destination: ZoneID, _ work: PendingWork, directory: Inode? = nil, control: SweepControl, threads: Int = 2
    ) throws(VolumeError) -> PendingWork? {
        guard let transition = Transition(work, in: destination) else { return nil }
        let found = directory == nil ? try find(transition, control) : nil
        defer { if let found { volume.table.release(found) } }
        if let found { try recount(transition, found, work) }
        guard !control.isCancelled else { return nil }
        let start = directory ?? found
        let moves = volume.moves.begin()
        defer { volume.moves.end(moves, volume.table) }
        func walk(_ pass: AssignSweep.Pass, counts: Bool) throws(VolumeError) -> Bool {
            let sweep = AssignSweep(volume, transition, control, pass, counts: counts)
            var walk = SweepWalk(volume: volume, visitor: sweep, control: control, moves: moves, threads: threads)
            // Removed meanwhile: then there is nothing left of it.
            guard let start else { return true }
            do throws(Errno) { walk.start = try volume.sweptDirectory(start) } catch {
                guard error == .stale || error == .noEntry else { throw .lower(error, "moving a tree") }
                return true
            }
            walk.run()
            return sweep.foundNothing
        }
        try requireFlushes()
        _ = try walk(.directories, counts: true)
        // What is in them follows only when a power cut leaves them the destination's.
        try flush("moving a tree")
        var isDone = false
        for round in 0..<Self.maximumRounds where !isDone && !control.isCancelled && control.progress.failed == 0 {
            isDone = try walk(.objects, counts: round == 0)
        }
        guard !control.isCancelled else { return nil }
        guard control.progress.failed == 0 else {
            throw .incomplete(failed: control.progress.failed, control.failures)
        }
        guard isDone else { throw .incomplete(failed: 1, ["directories move about all the time"]) }
        try flush("moving a tree")
        do throws(Errno) { try volume.settleZones(transition) } catch { throw .lower(error, "moving a tree") }
        // Every DEK that the source's keys ever wrapped was made before.
        var next = PendingWork(
            .reencrypt, version: .first, started: Self.nextSecond(), flags: work.flags, rate: work.rate,
            scope: work.scope)
        try changeKeyring(destination) { (keyring, keys) throws(VolumeError) in
            next.version = keys.activeKEK.version
            keyring.pending.removeAll { $0 == work || ($0.kind == .reencrypt && $0.scope == work.scope) }
            guard keyring.pending.count < PendingWork.maximumCount else { throw .keyring(.full) }
            keyring.pending.append(next)
            return keys
        }
        volume.waitForKeyUsers()
        return next
    }

    /// Passes over everything before it is given up: directories may move about in the tree.
    private static let maximumRounds = 8

    /// The directory that a note from another mount names, with one more reference; `nil` when it is not there any more, or `control`
    /// was cancelled. Nothing outside of the tree matters on the way to it.
    private func find(_ transition: Transition, _ control: SweepControl) throws(VolumeError) -> Inode? {
        let own = SweepControl()
        let finder = ScopeFinder(volume, transition, own, endingWith: control)
        let moves = volume.moves.begin()
        defer { volume.moves.end(moves, volume.table) }
        SweepWalk(volume: volume, visitor: finder, control: own, moves: moves).run()
        if let found = finder.found { return found }
        guard !control.isCancelled else { return nil }
        do throws(Errno) {
            _ = (try volume.storingKeys(transition.source), try volume.storingKeys(transition.destination))
        } catch {
            // It waits for the zone to be opened again.
            control.cancel()
            return nil
        }
        // It may be where nobody could look.
        guard own.progress.failed == 0, finder.lookedEverywhere, !own.isCancelled else {
            throw .incomplete(
                failed: max(1, own.progress.failed),
                own.failures.isEmpty ? ["the tree may lie in a zone that is closed"] : own.failures)
        }
        return nil
    }

    /// A note from another mount, of a tree of which nothing is converted yet: its names may not have been counted to the end.
    private func recount(_ transition: Transition, _ directory: Inode, _ work: PendingWork) throws(VolumeError) {
        do throws(Errno) {
            guard try volume.handle(directory).zone == transition.source else { return }
        } catch { throw .lower(error, "reading the directory") }
        do throws(VolumeError) { try requireInsideNames(transition, directory) } catch {
            // Only then it is certain that it never began: after a power cut there may be something that is converted already.
            if case .unassignable = error { try forget(transition.destination) { $0 == work } }
            throw error
        }
    }
}

/// Looks for the directory that a note names, and ends where it is found.
private final class ScopeFinder: SweepVisitor {
    private let volume: Volume
    private let transition: Transition
    private let control: SweepControl
    private let outer: SweepControl
    private let inode = Mutex<Inode?>(nil)
    private let leftOut = Atomic<Bool>(false)

    init(_ volume: Volume, _ transition: Transition, _ control: SweepControl, endingWith outer: SweepControl) {
        self.volume = volume
        self.transition = transition
        self.control = control
        self.outer = outer
    }

    /// With one more reference.
    var found: Inode? { inode.withLock { $0 } }
    var lookedEverywhere: Bool { !leftOut.load(ordering: .relaxed) }

    func wants(_ zone: ZoneID) -> Bool { transition.concerns(zone) }
    func enters(_ directory: SweepDirectory) throws(Errno) -> Bool {
        if outer.isCancelled { control.cancel() }
        return !control.isCancelled
    }
    func leavesOut(closed zone: ZoneID) -> Bool {
        guard !transition.concerns(zone) else { return false }
        leftOut.store(true, ordering: .relaxed)
        return true
    }
    func visit(_ directory: SweepDirectory) throws(Errno) {
        guard directory.header.directory == transition.scope else { return }
        let here: Inode
        do throws(Errno) { here = try directory.inode() } catch {
            // Something moved on the way to it.
            leftOut.store(true, ordering: .relaxed)
            throw error
        }
        inode.withLock { inode in
            guard inode == nil else { return }
            volume.table.retain(here)
            inode = here
        }
        control.cancel()
    }
    func visitFile(_ entry: SweepEntry, thread: Int) throws(Errno) {}
    func visitOther(_ entry: SweepEntry, isLink: Bool, thread: Int) throws(Errno) {}
    func finish(thread: Int) {}
}
