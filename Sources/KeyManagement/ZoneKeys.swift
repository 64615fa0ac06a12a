import Ciphers
import Secrets
import VolumeFormat

/// The keys of an unlocked zone. Letting go of the last reference wipes them all.
package final class ZoneKeys: Sendable {
    package let volume: UniqueID
    package let zone: ZoneID
    let keks: [UnlockedKEK]
    let metadataKeys: [MetadataKeys]
    private let activeIndex: Int

    /// `keks` is not empty and holds the active version.
    init(volume: UniqueID, zone: ZoneID, keks: [UnlockedKEK], active: KeyVersion, metadataKeys: [MetadataKeys]) {
        self.volume = volume
        self.zone = zone
        self.keks = keks
        self.metadataKeys = metadataKeys
        activeIndex = keks.firstIndex { $0.version == active } ?? 0
    }

    /// The same zone with other keys.
    func replacing(
        keks: [UnlockedKEK]? = nil, active: KeyVersion? = nil, metadataKeys: [MetadataKeys]? = nil
    ) -> ZoneKeys {
        ZoneKeys(
            volume: volume, zone: zone, keks: keks ?? self.keks, active: active ?? activeKEK.version,
            metadataKeys: metadataKeys ?? self.metadataKeys)
    }

    /// Wraps a slot's DEK by the active KEK instead of the one that it names. Version, date and bound stay.
    package func rewrap(_ slot: DEKSlot) throws(FormatError) -> DEKSlot {
        guard slot.kekVersion != activeKEK.version else { return slot }
        let dek = try unwrap(slot)
        var changed = slot
        do { changed.wrapped = try activeKEK.wrap(dek) } catch { throw FormatError(.notAuthentic, "DEK slot") }
        changed.kekVersion = activeKEK.version
        return changed
    }

    /// Wraps the DEK of another zone's slot by the active KEK of this one. Version and bound stay, and the date, unless it lies after
    /// `now` (a clock was set): a re-encryption of what is older than now is to find it.
    package func adopt(_ slot: DEKSlot, from source: ZoneKeys, now: UInt64) throws(FormatError) -> DEKSlot {
        let dek = try source.unwrap(slot)
        var changed = slot
        do { changed.wrapped = try activeKEK.wrap(dek) } catch { throw FormatError(.notAuthentic, "DEK slot") }
        changed.kekVersion = activeKEK.version
        changed.created = min(slot.created, now)
        return changed
    }

    /// The KEK version that wraps new DEKs.
    package var activeKEK: UnlockedKEK { keks[activeIndex] }

    /// Authenticates a keyring anew after a change, under every version that may decrypt.
    package func seal(_ keyring: inout ZoneKeyring) throws(CipherError) {
        try KeyringUnlocking.seal(&keyring, under: keks)
    }

    /// Whether these are the KEKs of a keyring, no more and no fewer: those that may decrypt, and the one that is active.
    package func match(_ keyring: ZoneKeyring) -> Bool {
        let usable = keyring.keks.filter(\.state.mayDecrypt).map(\.version)
        return Set(usable) == Set(keks.map(\.version)) && keyring.activeKEK?.version == activeKEK.version
    }

    package func kek(_ version: KeyVersion) -> UnlockedKEK? { keks.first { $0.version == version } }

    /// The newest metadata keys: they seal new link targets.
    package var currentMetadata: MetadataKeys? { metadataKeys.max { $0.version < $1.version } }

    /// All metadata keys, the newest first.
    package var allMetadata: [MetadataKeys] { metadataKeys.sorted { $0.version > $1.version } }

    package func metadata(_ version: KeyVersion) -> MetadataKeys? { metadataKeys.first { $0.version == version } }

    /// Unwraps the DEK of a slot. `.unknownKey` when its KEK version is not in the keyring any more.
    package func unwrap(_ slot: DEKSlot) throws(FormatError) -> SecretKey {
        guard let kek = kek(slot.kekVersion) else { throw FormatError(.unknownKey, "DEK slot") }
        do { return try kek.unwrap(slot.wrapped) } catch { throw FormatError(.notAuthentic, "DEK slot") }
    }

    /// A new slot with a fresh DEK, wrapped by the active KEK.
    package func makeSlot(version: KeyVersion, now: UInt64) throws(CipherError) -> (slot: DEKSlot, dek: DEK) {
        let key = try RandomBytes.key()
        let slot = DEKSlot(
            version: version, kekVersion: activeKEK.version, created: now, invocationBound: 0, state: .current,
            wrapped: try activeKEK.wrap(key))
        return (slot, DEK(key))
    }
}

/// A DEK on its way from a wrap to the keys derived from it.
package final class DEK: Sendable {
    package let key: SecretKey
    package init(_ key: consuming SecretKey) { self.key = key }
}

/// The keys derived from one version of a zone's metadata key: for what has no header of its own.
package final class MetadataKeys: Sendable {
    package let version: KeyVersion
    package let links: AEADKey
    package let xattrNames: SecretKey
    package let xattrValues: AEADKey

    init(version: KeyVersion, key: borrowing SecretKey, volume: UniqueID) throws(CipherError) {
        self.version = version
        let salt = SealedBlob.linkAAD(volume: volume, zone: .root)
        links = AEADKey(try HKDF.derive(from: key, salt: salt, info: Array("lethefs/1 links".utf8)))
        xattrNames = try HKDF.derive(from: key, salt: salt, info: Array("lethefs/1 xattr-names".utf8))
        xattrValues = AEADKey(try HKDF.derive(from: key, salt: salt, info: Array("lethefs/1 xattr-values".utf8)))
    }
}
