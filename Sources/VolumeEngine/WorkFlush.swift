import Storage

/// The flushes of a piece of work that lets keys go in the end.
///
/// A flush that failed, one of these or any other of the mount, ends all such work until the volume is mounted again: what was written
/// before it may be lost although it can still be read, and nothing tells which of it.
struct WorkFlush {
    private let volume: Volume

    init(_ volume: Volume) throws(VolumeError) {
        guard !volume.hasLostFlush else { throw .lostFlush }
        self.volume = volume
    }

    /// Returns when all that was written before is durable. `purpose` words what it is for.
    func run(_ purpose: String) throws(VolumeError) {
        do throws(Errno) { try volume.flushAll() } catch { throw .lower(error, purpose) }
    }
}

extension Volume {
    /// Flushes the lower file system by a descriptor that is as old as the mount. The kernel tells of a failure once through each
    /// descriptor: through this one nobody else is told, and it tells of whatever failed since the mount began.
    func flushAll() throws(Errno) {
        try flushing.withLock { (_) throws(Errno) in
            do throws(Errno) { try Lower.syncAll(flushed) } catch {
                noteLostFlush([])
                throw error
            }
            // Another caller may have been told.
            guard !hasLostFlush else { throw .io }
        }
    }
}
