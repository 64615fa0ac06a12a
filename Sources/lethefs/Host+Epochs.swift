import Logging
import VolumeEngine
import VolumeFormat

/// Each mount that writes is a new epoch (FORMAT §8). What this host saw of them tells a volume that was put back to an earlier
/// time: nothing on the lower storage itself could.
extension Host {
    /// The highest epoch that this host saw, if the volume is now older than that. `epoch`: `VolumeMount.storedEpoch`.
    func epochSeen(beyond epoch: UInt64, readOnly: Bool, _ volume: UniqueID) -> UInt64? {
        guard let seen = readRecord(volume)?.epoch else { return nil }
        // A mount that writes has gone one on.
        let isOlder = readOnly ? epoch < seen : epoch <= seen
        return isOlder ? seen : nil
    }

    /// Compares a new mount with what was seen, and tells and gives the epoch that it falls behind; remembers it otherwise.
    func noteMount(_ mount: VolumeMount, _ request: MountRequest, _ log: Logger) -> UInt64? {
        let (epoch, volume) = (mount.storedEpoch, mount.volume.description.volume)
        if let seen = epochSeen(beyond: epoch, readOnly: request.readOnly, volume) {
            log.warning(
                """
                the volume is older than the last mount on this host: epoch \(epoch), \(seen) was seen. If a backup was restored: \
                lethefs check \(request.lower) --accept-restore
                """)
            return seen
        }
        if !request.readOnly {
            do { try noteEpoch(epoch, volume) } catch { log.warning("the mount's epoch is not remembered: \(error)") }
        }
        return nil
    }

    /// Remembers an epoch, if it is the highest so far; with `accepting`, also if it is not.
    func noteEpoch(_ epoch: UInt64, _ volume: UniqueID, accepting: Bool = false) throws {
        guard var record = readRecord(volume), accepting || epoch > record.epoch ?? 0 else { return }
        record.epoch = epoch
        try writeRecord(volume, record)
    }
}
