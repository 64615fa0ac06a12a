import Storage
import Synchronization
import VolumeFormat

/// A tree on its way from one zone to another, as the destination's keyring notes it (FORMAT §10).
///
/// The tree is the directory `scope` and what can be reached from it through directories of the two zones; other zones within it are
/// not of it.
struct Transition: Equatable, Sendable {
    let destination: ZoneID
    let source: ZoneID
    /// UUID of the directory.
    let scope: UniqueID

    /// `nil` for work of another kind.
    init?(_ work: PendingWork, in destination: ZoneID) {
        guard let source = work.source else { return nil }
        self.destination = destination
        self.source = source
        scope = work.scope
    }

    func concerns(_ zone: ZoneID) -> Bool { zone == source || zone == destination }
}

/// The transitions of a mounted volume. Where there are none, which is nearly always, asking costs one load.
final class Transitions: Sendable {
    private let count = Atomic<Int>(0)
    // Leaf lock.
    private let list = Mutex<[Transition]>([])

    var isEmpty: Bool { count.load(ordering: .acquiring) == 0 }
    var all: [Transition] { isEmpty ? [] : list.withLock { $0 } }

    func set(_ transitions: [Transition]) {
        list.withLock { list in
            list = transitions
            count.store(transitions.count, ordering: .releasing)
        }
    }

    /// True when exactly one of two directories lies in a tree that is on its way: nothing goes into such a tree, nor out of it, so
    /// that what was counted stays true, and nothing of the source is found outside. The caller holds `placing`.
    @inline(__always)
    func isParting(_ one: Inode, _ other: Inode, _ volume: Volume) throws(Errno) -> Bool {
        isEmpty || one === other ? false : try parts(one, other, volume)
    }

    private func parts(_ one: Inode, _ other: Inode, _ volume: Volume) throws(Errno) -> Bool {
        for transition in all where try volume.isInside(one, transition) != volume.isInside(other, transition) {
            return true
        }
        return false
    }

    /// True when an object may not get another name in `parent` while a tree is on its way: not across its border, and within it
    /// only files, which are converted in place.
    @inline(__always)
    func forbidsLink(_ inode: Inode, in parent: Inode, _ volume: Volume) throws(Errno) -> Bool {
        isEmpty ? false : try forbids(inode, parent, volume)
    }

    private func forbids(_ inode: Inode, _ parent: Inode, _ volume: Volume) throws(Errno) -> Bool {
        guard let place = inode.state.withLock({ $0.location?.parent }) else { return true }
        if try isParting(place, parent, volume) { return true }
        guard inode.kind != .regular else { return false }
        for transition in all where try volume.isInside(parent, transition) { return true }
        return false
    }
}

extension Volume {
    /// True when a directory lies in a tree that is on its way. Above it others may be closed: then it does not.
    func isInside(_ directory: Inode, _ transition: Transition) throws(Errno) -> Bool {
        var next: Inode? = directory
        var steps = 0
        while let current = next, steps <= Self.maximumDepth {
            let handle: DirectoryHandle
            do throws(Errno) { handle = try self.handle(current) } catch {
                guard error == .keyRevoked || error == .noKey else { throw error }
                return false
            }
            if handle.header.directory == transition.scope { return true }
            guard transition.concerns(handle.zone) else { return false }
            next = current.state.withLock { $0.location?.parent }
            steps += 1
        }
        return false
    }

    /// True when a directory is the one with that UUID, or lies below it.
    func isBelow(_ scope: UniqueID, _ directory: Inode) throws(Errno) -> Bool {
        var next: Inode? = directory
        var steps = 0
        while let current = next, steps <= Self.maximumDepth {
            if try handle(current).header.directory == scope { return true }
            next = current.state.withLock { $0.location?.parent }
            steps += 1
        }
        return false
    }

    /// Whether an object in a directory may belong to a zone: it is the directory's, or the directory lies in a tree that is on its way
    /// between the two. Anything else is damage.
    ///
    /// Either way round: a directory is converted before what is in it, but after a power cut its header may be the source's again,
    /// while that of a file that a program made in it meanwhile, and flushed, is the destination's.
    func admits(in directory: Inode, _ zone: ZoneID) throws(Errno) -> Bool {
        let place = try handle(directory).zone
        if place == zone { return true }
        for transition in transitions.all where transition.concerns(place) && transition.concerns(zone) {
            if try isInside(directory, transition) { return true }
        }
        return false
    }

    /// The same for an object by its own inode.
    func admits(_ inode: Inode, _ zone: ZoneID) throws(Errno) -> Bool {
        guard let parent = inode.state.withLock({ $0.location?.parent }) else { return false }
        return try admits(in: parent, zone)
    }

    /// The same for what a sweep met.
    func admits(_ entry: SweepEntry, _ zone: ZoneID) throws(Errno) -> Bool {
        switch entry {
        case .named(let directory, _): try admits(in: try directory.inode(), zone)
        case .moved(let inode): try admits(inode, zone)
        }
    }

    /// Zones whose metadata keys may have sealed something of a link or special file: that of its directory, then the other ones that
    /// the directory's tree is on its way from or to (see `admits`).
    func metadataZones(_ inode: Inode) throws(Errno) -> [ZoneID] {
        guard let parent = inode.state.withLock({ $0.location?.parent }) else { return [inode.zone] }
        let place = try handle(parent).zone
        var zones = [place]
        for transition in transitions.all where transition.concerns(place) {
            guard try isInside(parent, transition) else { continue }
            zones.append(transition.source == place ? transition.destination : transition.source)
        }
        return zones
    }

    /// Whether a sweep over what belongs to `zone` looks into directories of `place`.
    func mayHold(_ place: ZoneID, _ zone: ZoneID) -> Bool {
        place == zone || transitions.all.contains { $0.concerns(place) && $0.concerns(zone) }
    }

    /// After a tree has gone to another zone: inode objects that a lookup from before gave the zone of then.
    func settleZones(_ transition: Transition) throws(Errno) {
        for inode in table.retainAll() {
            defer { table.release(inode) }
            let (parent, pinned) = inode.state.withLock { ($0.location?.parent, $0.pinned != nil) }
            guard inode.belongs(to: transition.source), !pinned, let parent else { continue }
            do throws(Errno) {
                guard try handle(parent).zone == transition.destination else { continue }
                gate(inode).lock.withLock { _ in
                    let content = inode.state.withLock { $0.content }
                    let zone = content?.lock.reading { content?.header.zone }
                    if zone == nil || zone == transition.destination { inode.setZone(transition.destination) }
                }
            } catch {
                // Gone meanwhile, or of a zone that is closed: then it is none of these.
                guard [.stale, .noEntry, .keyRevoked, .noKey].contains(error) else { throw error }
            }
        }
    }
}
