import Ciphers
import Secrets
import VolumeFormat

/// Changes to a keyring: new KEK versions, new CMKs, states. Nothing here stores or seals: whoever owns the keyring does, once a
/// change is whole (and a change that fails half way is thrown away with its copy of the keyring).
///
/// Calls CMK owners: no caller holds a lock that a data path takes.
package struct KeyringEditing: Sendable {
    let resolve: KeyringUnlocking.Resolver

    package init(resolve: @escaping KeyringUnlocking.Resolver) { self.resolve = resolve }

    /// A new KEK version, active from now on, under the CMKs in use. The versions before it go to `old` (deactivated or
    /// compromised) if they were active; the metadata keys are wrapped by the new one, unless `keepsMetadata`: then they stay under theirs.
    package func addKEK(
        to keyring: inout ZoneKeyring, _ keys: ZoneKeys, old: KeyState = .deactivated, keepsMetadata: Bool = false,
        now: UInt64
    ) throws(KeyringError) -> ZoneKeys {
        precondition(old == .deactivated || old == .compromised)
        guard let newest = keyring.keks.map(\.version).max(), newest.rawValue < UInt32.max,
            keyring.keks.count < ZoneKeyring.maximumKEKs
        else { throw .full }
        let version = KeyVersion(rawValue: newest.rawValue + 1)
        let context = KEKContext(volume: keyring.volume, zone: keyring.zone, kekVersion: version)
        let kek = try Self.newKey()
        let unlocked: UnlockedKEK
        do { unlocked = try UnlockedKEK(version: version, kek: kek, context: context) } catch { throw .cipher(error) }
        let wraps = try wrap(kek, in: keyring, context: context)
        for index in keyring.keks.indices where keyring.keks[index].state == .active {
            keyring.keks[index].history.note(old, at: now)
        }
        keyring.keks.append(.init(version: version, history: [StateChange(.active, at: now)], wraps: wraps))
        if !keepsMetadata { try rewrapMetadata(&keyring, keys, under: unlocked) }
        return keys.replacing(keks: keys.keks + [unlocked], active: version)
    }

    /// Wraps every metadata key by the active KEK: what kept them under older ones is over.
    package func gatherMetadataKeys(of keyring: inout ZoneKeyring, _ keys: ZoneKeys) throws(KeyringError) {
        try rewrapMetadata(&keyring, keys, under: keys.activeKEK)
    }

    /// Wraps every metadata key by `kek`, so that older versions can go.
    private func rewrapMetadata(
        _ keyring: inout ZoneKeyring, _ keys: ZoneKeys, under kek: UnlockedKEK
    ) throws(KeyringError) {
        for index in keyring.metadataKeys.indices {
            let entry = keyring.metadataKeys[index]
            // One whose KEK is gone serves nothing any more.
            guard let holder = keys.kek(entry.kekVersion) else { continue }
            do {
                keyring.metadataKeys[index].wrapped = try kek.wrap(try holder.unwrap(entry.wrapped))
            } catch { throw .notAuthentic }
            keyring.metadataKeys[index].kekVersion = kek.version
        }
        keyring.metadataKeys.removeAll { $0.kekVersion != kek.version }
    }

    /// A new metadata key, for link targets and the attributes of what has no header. The older ones stay until nothing is
    /// sealed by them.
    package func addMetadataKey(
        to keyring: inout ZoneKeyring, _ keys: ZoneKeys, now: UInt64
    ) throws(KeyringError) -> ZoneKeys {
        guard let newest = keyring.metadataKeys.map(\.version).max(), newest.rawValue < UInt32.max,
            keyring.metadataKeys.count < ZoneKeyring.maximumKEKs
        else { throw .full }
        let version = KeyVersion(rawValue: newest.rawValue + 1)
        do {
            let key = try RandomBytes.key()
            let kek = keys.activeKEK
            keyring.metadataKeys.append(
                .init(version: version, kekVersion: kek.version, created: now, wrapped: try kek.wrap(key)))
            let metadata = try MetadataKeys(version: version, key: key, volume: keyring.volume)
            return keys.replacing(metadataKeys: keys.metadataKeys + [metadata])
        } catch { throw .cipher(error) }
    }

    /// Takes metadata keys older than the newest away. The caller knows that nothing is sealed by them.
    package func dropOldMetadataKeys(from keyring: inout ZoneKeyring, _ keys: ZoneKeys) -> ZoneKeys {
        guard let newest = keyring.metadataKeys.map(\.version).max() else { return keys }
        keyring.metadataKeys.removeAll { $0.version != newest }
        return keys.replacing(metadataKeys: keys.metadataKeys.filter { $0.version == newest })
    }

    /// Destroys a KEK version in the keyring: its wraps go, and with them the only way to it that the volume has. Of a version
    /// that the CMK alone wrapped an empty wrap stays, which says that old copies of the keyring still open under that CMK.
    ///
    /// With `untilProven` the wraps stay, and open nothing here, until `isRefused` has tried them and `forgetProven` takes them away.
    package func destroyKEK(
        _ version: KeyVersion, in keyring: inout ZoneKeyring, _ keys: ZoneKeys, untilProven: Bool = false, now: UInt64
    ) throws(KeyringError) -> ZoneKeys {
        guard let index = keyring.keks.firstIndex(where: { $0.version == version }), version != keys.activeKEK.version,
            keyring.keks[index].state != .active, keyring.keks[index].state != .destroyed
        else { throw .inUse }
        guard !keyring.metadataKeys.contains(where: { $0.kekVersion == version }) else { throw .inUse }
        if !untilProven { keyring.keks[index].emptyWraps() }
        keyring.keks[index].history.note(.destroyed, at: now)
        return keys.replacing(keks: keys.keks.filter { $0.version != version }, active: keys.activeKEK.version)
    }

    /// Destroys the version keys of a KEK version beside all CMKs of a keyring, former ones included, but for those that the
    /// keyring still uses. Returns how many it destroyed. A former CMK that is gone needs none of it; one that this host does not know
    /// may well be there, unless an operator has destroyed it.
    ///
    /// `keyring` is asked anew before each CMK: one that does not answer at once may take long.
    package func destroyVersionKeys(
        _ version: KeyVersion, of keyring: () -> ZoneKeyring
    ) throws(KeyringError) -> Int {
        let before = keyring()
        let context = KEKContext(volume: before.volume, zone: before.zone, kekVersion: version)
        var destroyed = 0
        for cmk in before.cmks {
            let kek = keyring().keks.first { $0.version == version && $0.state != .destroyed }
            let kept = kek?.wraps.compactMap { try? SplitWrap(parsing: $0.wrap).id } ?? []
            do { destroyed += try resolve(cmk.uri).destroyVersionKeys(context, except: kept) } catch {
                switch error.code {
                case .keyNotFound, .destroyed:
                    guard !cmk.isInUse || cmk.state == .destroyed else { throw .root(error, uri: cmk.uri) }
                case .unknownRoot where cmk.state == .destroyed: break
                default: throw .root(error, uri: cmk.uri)
                }
            }
        }
        return destroyed
    }

    /// Wraps every KEK version that may decrypt under other CMKs. The CMKs in use until now stay in the list as deactivated.
    ///
    /// Every version gets version keys beside the new CMKs; the old ones are destroyed by `destroyVersionKeys`, once the new keyring
    /// is stored.
    package func replaceCMKs(
        of keyring: inout ZoneKeyring, with cmks: [any CustomerMasterKey], now: UInt64
    ) throws(KeyringError) {
        precondition(!cmks.isEmpty)
        let old = keyring
        // The list is short: former CMKs give way, the oldest first. Not those that become former ones now: their version keys are there.
        while keyring.cmks.count + cmks.count > ZoneKeyring.maximumCMKs {
            guard keyring.removeOldestCMK() else { throw .full }
        }
        for index in keyring.cmks.indices where keyring.cmks[index].isInUse {
            keyring.cmks[index].history.note(.deactivated, at: now)
        }
        let first = keyring.cmks.count
        keyring.cmks += cmks.map { ZoneKeyring.CMK(uri: $0.uri, history: [StateChange(.active, at: now)]) }
        for index in keyring.keks.indices {
            guard keyring.keks[index].state.mayDecrypt else { continue }
            let version = keyring.keks[index].version
            let context = KEKContext(volume: keyring.volume, zone: keyring.zone, kekVersion: version)
            let kek = try KEKSharing.unwrap(old.keks[index], of: old, context: context, resolve: resolve)
            // A version that was never guarded stays so: old copies of the keyring are not, and this one goes on saying so.
            let guarded = !keyring.keks[index].wraps.contains { $0.wrap.algorithm != .split }
            keyring.keks[index].wraps = try share(
                kek, policy: keyring.policy, cmks, first: first, context: context, guarded: guarded)
        }
    }

    private func wrap(
        _ kek: borrowing SecretKey, in keyring: ZoneKeyring, context: KEKContext
    ) throws(KeyringError) -> [ZoneKeyring.Wrap] {
        var inUse: [any CustomerMasterKey] = []
        var indices: [UInt8] = []
        // Where any one is enough, those that are left do. Where none is left, the owners have the last word, not what was noted.
        let areLeft = keyring.cmks.contains { $0.isInUse && $0.state != .destroyed }
        for (index, cmk) in keyring.cmks.enumerated() where cmk.isInUse {
            if keyring.policy == .anyOf, cmk.state == .destroyed, areLeft { continue }
            do { inUse.append(try resolve(cmk.uri)) } catch { throw .root(error, uri: cmk.uri) }
            indices.append(UInt8(index))
        }
        guard !inUse.isEmpty else { throw .noUsableKEK }
        var wraps = try share(kek, policy: keyring.policy, inUse, first: 0, context: context)
        for index in wraps.indices { wraps[index].cmk = indices[Int(wraps[index].cmk)] }
        return wraps
    }

    private func share(
        _ kek: borrowing SecretKey, policy: ZoneKeyring.Policy, _ cmks: [any CustomerMasterKey], first: Int,
        context: KEKContext, guarded: Bool = true
    ) throws(KeyringError) -> [ZoneKeyring.Wrap] {
        do {
            return try KEKSharing.wrap(kek, policy: policy, cmks: cmks, context: context, guarded: guarded).map {
                wrap in
                var moved = wrap
                moved.cmk += UInt8(first)
                return moved
            }
        } catch let error as KeyringError {
            throw error
        } catch let error as CipherError {
            throw .cipher(error)
        } catch { throw .notAuthentic }
    }

    private static func newKey() throws(KeyringError) -> SecretKey {
        do { return try RandomBytes.key() } catch { throw .cipher(error) }
    }
}

extension ZoneKeyring {
    /// Notes that version keys of a KEK version are to be destroyed. One note stands for all that there are, and is younger than the one
    /// before, so that who is at that one does not take it for done.
    package mutating func notePurge(of version: KeyVersion, now: UInt64) throws(KeyringError) {
        let isSame = { (work: PendingWork) in work.kind == .purge && work.version == version }
        let before = pending.filter(isSame).map(\.started).max()
        pending.removeAll(where: isSame)
        guard pending.count < PendingWork.maximumCount else { throw .full }
        pending.append(PendingWork(.purge, version: version, started: max(now, before.map { $0 + 1 } ?? 0)))
    }

    /// The KEK versions, destroyed or not, that old copies of this keyring open with nothing but the CMK: no version key
    /// guarded them.
    package var unguardedKEKs: [KeyVersion] {
        keks.filter { kek in kek.wraps.contains { $0.wrap.algorithm != .split } }.map(\.version)
    }
}
