import CLinux
import KeyManagement
import Storage
import Synchronization
import VolumeFormat

/// Keyrings of a mounted volume: one place that reads, changes, stores and installs them.
extension VolumeMount {
    /// The keyring of a zone, as it is stored.
    package func keyring(_ zone: ZoneID) -> ZoneKeyring? { keyrings.withLock { $0[zone] } }

    package var zoneKeyrings: [ZoneKeyring] {
        keyrings.withLock { Array($0.values) }.sorted { $0.zone.rawValue < $1.zone.rawValue }
    }

    /// Unwraps the zone's active KEK by a real call to its owner, and lets it go: the owner still says yes.
    package func probe(_ zone: ZoneID) throws(KeyringError) {
        guard let keyring = keyring(zone) else { throw .noUsableKEK }
        do throws(KeyringError) { try unlocking.probe(keyring) } catch {
            // A rotation may have come in between, and destroyed what the keyring of before needed.
            guard let now = self.keyring(zone), now != keyring else { throw error }
            try unlocking.probe(now)
        }
    }

    /// Unwraps a zone's keys anew by real calls to their owner, for `Zone.open`. Opens nothing by itself.
    package func unlock(_ zone: ZoneID) throws(KeyringError) -> Zone.Unlocked {
        // The count comes first: a change in between is noticed then.
        guard let installs = volume.zones.find(zone)?.installCount, let keyring = keyring(zone) else {
            throw .noUsableKEK
        }
        return Zone.Unlocked(keys: try unlocking.unlock(keyring), installs: installs)
    }

    /// Changes a keyring: it gets the next generation, is sealed under every KEK that may decrypt, stored durably, and its keys are
    /// installed in the zone. One change at a time; `change` makes no call to a CMK's owner.
    ///
    /// `change` edits the keyring and returns the keys that go with it, or those it was given. EBUSY, and nothing is stored, where the keys
    /// are not just those that the keyring says: no reader would accept it under their seals.
    package func changeKeyring(
        _ zone: ZoneID, _ change: (inout ZoneKeyring, ZoneKeys) throws(VolumeError) -> ZoneKeys
    ) throws(VolumeError) {
        try keyringChange.withLock { (_) throws(VolumeError) in
            guard var keyring = keyring(zone) else { throw .missing("\(VolumeFiles.zones)/\(zone.rawValue)") }
            let keys: ZoneKeys
            do throws(Errno) { keys = try volume.zone(zone).storingKeys() } catch {
                throw .lower(error, "changing a zone's keyring")
            }
            let previous = keys.activeKEK.version
            let changed = try change(&keyring, keys)
            guard changed.match(keyring) else { throw .lower(.busy, "changing a zone's keyring") }
            keyring.generation += 1
            do { try changed.seal(&keyring) } catch { throw .cipher }
            try files.writeKeyring(keyring)
            keyrings.withLock { $0[zone] = keyring }
            updateTransitions()
            do throws(Errno) { try volume.zone(zone).install(changed) } catch {
                throw .lower(error, "installing a zone's keys")
            }
            if zone == .root, changed.activeKEK.version != previous { try resealVolumeFiles(changed) }
        }
    }

    /// A keyring for a new zone under CMKs that are at hand. Calls their owners.
    package func makeKeyring(
        policy: ZoneKeyring.Policy, cmks: [any CustomerMasterKey]
    ) throws(VolumeError) -> (keyring: ZoneKeyring, keys: ZoneKeys) {
        let zone = try nextZone()
        do {
            return try unlocking.create(
                volume: volume.description.volume, zone: zone, policy: policy, cmks: cmks, now: Volume.now)
        } catch { throw .keyring(error) }
    }

    /// Adds a zone whose keyring `makeKeyring` made.
    package func addZone(_ keyring: ZoneKeyring, _ keys: ZoneKeys) throws(VolumeError) {
        try keyringChange.withLock { (_) throws(VolumeError) in
            guard self.keyring(keyring.zone) == nil else { throw .alreadyVolume }
            try files.writeKeyring(keyring)
            keyrings.withLock { $0[keyring.zone] = keyring }
            volume.zones.add(Zone(keys))
        }
    }

    /// The number of the next zone.
    private func nextZone() throws(VolumeError) -> ZoneID {
        let highest = keyrings.withLock { $0.keys.map(\.rawValue).max() ?? 0 }
        guard highest + 1 < UInt32(ZoneTable.maximumCount) else { throw .tooManyZones }
        return ZoneID(rawValue: highest + 1)
    }
}

extension VolumeFiles {
    /// The zones that have a keyring, in order.
    package func zoneIDs() throws(VolumeError) -> [ZoneID] {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 16)
        defer { buffer.deallocate() }
        var ids: [ZoneID] = []
        do {
            let zones = try Lower.open(directory, Self.zones, flags: O_RDONLY | O_DIRECTORY, for: .daemon)
            while true {
                let count = try Lower.readDirectory(zones, into: buffer)
                if count == 0 { break }
                LowerEntry.forEach(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { entry in
                    let name = String(decoding: entry.name, as: UTF8.self)
                    if let number = UInt32(name), "\(number)" == name, number < UInt32(ZoneTable.maximumCount) {
                        ids.append(ZoneID(rawValue: number))
                    }
                    return true
                }
            }
        } catch {
            if error == .noEntry { throw .missing(Self.zones) }
            throw .lower(error, "reading \(ReservedName.volumeDirectory)/\(Self.zones)")
        }
        return ids.sorted { $0.rawValue < $1.rawValue }
    }

    func writeKeyring(_ keyring: ZoneKeyring) throws(VolumeError) {
        do {
            let zones = try Lower.open(directory, Self.zones, flags: O_RDONLY | O_DIRECTORY, for: .daemon)
            try AtomicFile.replace(zones, "\(keyring.zone.rawValue)", with: keyring.encoded)
        } catch {
            throw .lower(error, "writing \(ReservedName.volumeDirectory)/\(Self.zones)/\(keyring.zone.rawValue)")
        }
    }
}
