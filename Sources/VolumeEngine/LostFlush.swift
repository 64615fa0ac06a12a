import Storage

/// A flush that failed, whoever asked for it, ends all work that lets keys go until the volume is mounted again: what was written before
/// it may be lost although it can still be read, and nothing tells which of it.
extension VolumeMount {
    /// Lets such work begin.
    func requireFlushes() throws(VolumeError) {
        guard !volume.hasLostFlush else { throw .lostFlush }
    }

    /// Returns when all that was written before is durable. `purpose` words what it is for.
    func flush(_ purpose: String) throws(VolumeError) {
        try requireFlushes()
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
