import Storage
import Synchronization
import VolumeFormat

/// The zones of a tree: its own, and those that have their roots below.
extension VolumeMount {
    /// Walks directories alone. Fails where a zone is closed, and where a directory cannot be read: what lies in it is not known.
    package func zones(
        of directory: Inode, control: SweepControl, threads: Int = 2
    ) throws(VolumeError) -> Set<ZoneID> {
        let moves = volume.moves.begin()
        defer { volume.moves.end(moves, volume.table) }
        let start: SweepDirectory
        do throws(Errno) { start = try volume.sweptDirectory(directory) } catch {
            throw .lower(error, "looking for zones")
        }
        let visitor = ZonesBelow(volume, start.header.directory)
        SweepWalk(volume: volume, visitor: visitor, control: control, moves: moves, threads: threads, start: start)
            .run()
        guard control.progress.failed == 0 else {
            throw .incomplete(failed: control.progress.failed, control.failures)
        }
        guard !control.isCancelled else { throw .lower(.interrupted, "looking for zones") }
        return visitor.found.withLock { $0 }
    }
}

/// Notes the zone of each directory of a tree.
private final class ZonesBelow: SweepVisitor {
    private let volume: Volume
    private let scope: UniqueID
    // Leaf lock.
    let found = Mutex<Set<ZoneID>>([])

    init(_ volume: Volume, _ scope: UniqueID) {
        self.volume = volume
        self.scope = scope
    }

    func enters(_ directory: SweepDirectory) throws(Errno) -> Bool {
        // One that was moved meanwhile comes by itself, and may have left the tree.
        if directory.parent == nil, !(try volume.isBelow(scope, try directory.inode())) { return false }
        found.withLock { _ = $0.insert(directory.zone) }
        return true
    }

    // Files belong to the zones of their directories.
    func wants(_ zone: ZoneID) -> Bool { false }
    func visit(_ directory: SweepDirectory) {}
    func visitFile(_ entry: SweepEntry, thread: Int) {}
    func visitOther(_ entry: SweepEntry, isLink: Bool, thread: Int) {}
    func finish(thread: Int) {}
}
