import CLinux
import Storage
import Synchronization
import VolumeFormat

/// Converts a tree to another zone: directories first, each before what is in it; then everything else.
final class AssignSweep: SweepVisitor {
    enum Pass { case directories, objects }

    private let volume: Volume
    let transition: Transition
    private let control: SweepControl
    private let pass: Pass
    /// A pass that only makes sure counts nothing that was counted before.
    private let counts: Bool
    private let changed = Atomic<UInt64>(0)
    private let skipped = Atomic<UInt64>(0)

    init(_ volume: Volume, _ transition: Transition, _ control: SweepControl, _ pass: Pass, counts: Bool) {
        self.volume = volume
        self.transition = transition
        self.control = control
        self.pass = pass
        self.counts = counts
    }

    /// True when it found nothing that was still the source's, and could look everywhere.
    var foundNothing: Bool {
        changed.load(ordering: .relaxed) == 0 && skipped.load(ordering: .relaxed) == 0
    }

    func wants(_ zone: ZoneID) -> Bool { transition.concerns(zone) }
    // Other zones below are not of the tree, and what moved outside of it is not either.
    func enters(_ directory: SweepDirectory) throws(Errno) -> Bool {
        if try volume.isInside(directory, transition) { return true }
        try requireKeys()
        return false
    }
    func leavesOut(closed zone: ZoneID) -> Bool { !transition.concerns(zone) }
    func finish(thread: Int) {}

    func visit(_ directory: SweepDirectory) throws(Errno) {
        do throws(Errno) {
            note(try volume.assignDirectory(directory, transition))
        } catch {
            // It comes again; if it does not, the next pass finds it.
            if error == .stale { skipped.add(1, ordering: .relaxed) }
            throw error
        }
        if pass == .directories, counts { control.count { $0.directories += 1 } }
    }

    func visitFile(_ entry: SweepEntry, thread: Int) throws(Errno) {
        guard pass == .objects, try isReady(entry) else { return }
        var unused = 0
        guard control.pace(bytes: UInt64(Geometry.headerSize), lastUses: &unused) else { return }
        let (swept, size) = try volume.assignFile(entry, transition)
        note(swept)
        guard counts else { return }
        control.count {
            $0.files += 1
            $0.bytes.addUpToMaximum(size)
        }
    }

    func visitOther(_ entry: SweepEntry, isLink: Bool, thread: Int) throws(Errno) {
        guard pass == .objects, try isReady(entry) else { return }
        note(try volume.assignOther(entry, isLink: isLink, transition))
        if counts { control.count { $0.links += 1 } }
    }

    private func note(_ swept: Volume.Swept) {
        guard swept == .changed else { return }
        changed.add(1, ordering: .relaxed)
        control.count { $0.changed += 1 }
    }

    /// Without the keys of both zones nobody can tell that something is not of the tree.
    private func requireKeys() throws(Errno) {
        _ = (try volume.storingKeys(transition.source), try volume.storingKeys(transition.destination))
    }

    /// True for what lies in a directory of the tree that has been converted.
    private func isReady(_ entry: SweepEntry) throws(Errno) -> Bool {
        let place: Inode
        switch entry {
        case .named(let directory, _):
            guard try volume.isInside(directory, transition) else { return false }
            place = try directory.inode()
        case .moved(let inode):
            guard let parent = inode.state.withLock({ $0.location?.parent }) else { return false }
            guard try volume.isInside(parent, transition) else {
                try requireKeys()
                return false
            }
            place = parent
        }
        guard try volume.handle(place).zone == transition.destination else {
            skipped.add(1, ordering: .relaxed)
            return false
        }
        return true
    }
}

extension Volume {
    /// As `isInside` of an inode, by what the walk has read on its way.
    func isInside(_ directory: SweepDirectory, _ transition: Transition) throws(Errno) -> Bool {
        var current = directory
        while true {
            if current.header.directory == transition.scope { return true }
            guard transition.concerns(current.zone) else { return false }
            guard let parent = current.parent else { return try isInside(try current.inode(), transition) }
            current = parent
        }
    }
}

/// Looks for files with names both inside a tree and outside of it, and for symbolic links with several names: neither can go to
/// another zone.
final class OutsideNames: SweepVisitor {
    private struct Seen {
        var names: UInt64
        /// The most that was seen.
        var all: UInt64
        let path: String
    }

    private let volume: Volume
    private let transition: Transition
    /// Of the tree's directory.
    private let path: String
    private let seen = Mutex<[InodeKey: Seen]>([:])
    private static let keptPaths = 10

    init(_ volume: Volume, _ transition: Transition, path: String) {
        self.volume = volume
        self.transition = transition
        self.path = path
    }

    /// How many there are, and the first ones' paths.
    var result: (count: UInt64, paths: [String]) {
        let outside = seen.withLock { $0.values.filter { $0.names < $0.all }.map(\.path) }
        return (UInt64(outside.count), Array(outside.sorted().prefix(Self.keptPaths)))
    }

    func wants(_ zone: ZoneID) -> Bool { transition.concerns(zone) }
    func enters(_ directory: SweepDirectory) throws(Errno) -> Bool { try volume.isInside(directory, transition) }
    func leavesOut(closed zone: ZoneID) -> Bool { !transition.concerns(zone) }
    func visit(_ directory: SweepDirectory) throws(Errno) {}
    func finish(thread: Int) {}

    func visitFile(_ entry: SweepEntry, thread: Int) throws(Errno) { try count(entry, isLink: false) }
    func visitOther(_ entry: SweepEntry, isLink: Bool, thread: Int) throws(Errno) { try count(entry, isLink: isLink) }

    private func count(_ entry: SweepEntry, isLink: Bool) throws(Errno) {
        guard case .named(let directory, let name) = entry, try volume.isInside(directory, transition) else { return }
        let info = try directory.place.stat(name)
        guard info.st_nlink > 1 else { return }
        seen.withLock { seen in
            var one = seen[InodeKey(info)] ?? Seen(names: 0, all: 0, path: path + entry.path)
            one.names += isLink ? 0 : 1
            one.all = max(one.all, UInt64(info.st_nlink))
            seen[InodeKey(info)] = one
        }
    }
}
