import Ciphers
import Secrets
import VolumeFormat

/// Opens keyrings by real unwraps, and makes new ones. Calls CMK owners: no caller holds a lock.
package struct KeyringUnlocking: Sendable {
    /// Finds the CMK of a URI. The host decides which URIs it trusts.
    package typealias Resolver = @Sendable (String) throws(RootError) -> any CustomerMasterKey

    private let resolve: Resolver

    package init(resolve: @escaping Resolver) { self.resolve = resolve }

    /// Unwraps every KEK version that may decrypt, then authenticates the keyring under each of them.
    package func unlock(_ keyring: ZoneKeyring) throws(KeyringError) -> ZoneKeys {
        let usable = keyring.keks.filter { $0.state.mayDecrypt }
        guard let active = keyring.activeKEK, !usable.isEmpty else { throw .noUsableKEK }
        var keks: [UnlockedKEK] = []
        for kek in usable { keks.append(try unlock(kek, of: keyring)) }
        try Self.authenticate(keyring, under: keks)
        return try Self.assemble(keyring, keks: keks, active: active.version)
    }

    /// Unwraps the active KEK and lets it go: proof that its owner still says yes.
    package func probe(_ keyring: ZoneKeyring) throws(KeyringError) {
        guard let active = keyring.activeKEK else { throw .noUsableKEK }
        _ = try unlock(active, of: keyring)
    }

    /// Whether a CMK is the one at `index` of a keyring, whatever it is called: it unwraps what that one has wrapped.
    package static func isCMK(
        _ cmk: any CustomerMasterKey, _ index: Int, of keyring: ZoneKeyring
    ) throws(KeyringError) -> Bool {
        guard let active = keyring.activeKEK, let wrap = active.wraps.first(where: { Int($0.cmk) == index }) else {
            return false
        }
        let context = KEKContext(volume: keyring.volume, zone: keyring.zone, kekVersion: active.version)
        do throws(KeyringError) {
            _ = try KEKSharing.unwrap(wrap, of: keyring, context: context) { (_) throws(RootError) in cmk }
            return true
        } catch {
            guard case .root(let answer, _) = error, answer.code == .notAuthentic else { throw error }
            return false
        }
    }

    /// A keyring with one fresh KEK under the given CMKs.
    package func create(
        volume: UniqueID, zone: ZoneID, policy: ZoneKeyring.Policy, cmks: [any CustomerMasterKey], now: UInt64
    ) throws(KeyringError) -> (keyring: ZoneKeyring, keys: ZoneKeys) {
        precondition(!cmks.isEmpty)
        do {
            let kek = try RandomBytes.key()
            let context = KEKContext(volume: volume, zone: zone, kekVersion: .first)
            let unlocked = try UnlockedKEK(version: .first, kek: kek, context: context)
            let metadataKey = try RandomBytes.key()
            let active = [StateChange(.active, at: now)]
            var keyring = ZoneKeyring(
                volume: volume, zone: zone, generation: 1, policy: policy,
                cmks: cmks.map { ZoneKeyring.CMK(uri: $0.uri, history: active) },
                keks: [
                    ZoneKeyring.KEK(
                        version: .first, history: active,
                        wraps: try KEKSharing.wrap(kek, policy: policy, cmks: cmks, context: context))
                ],
                metadataKeys: [
                    ZoneKeyring.MetadataKey(
                        version: .first, kekVersion: .first, created: now, wrapped: try unlocked.wrap(metadataKey))
                ])
            try Self.seal(&keyring, under: [unlocked])
            return (keyring, try Self.assemble(keyring, keks: [unlocked], active: .first))
        } catch let error as KeyringError {
            throw error
        } catch let error as CipherError {
            throw .cipher(error)
        } catch {
            throw .notAuthentic
        }
    }

    /// Authenticates a keyring anew after a change, under every version in `keks`.
    static func seal(_ keyring: inout ZoneKeyring, under keks: [UnlockedKEK]) throws(CipherError) {
        let bytes = keyring.authenticatedBytes
        keyring.macs = []
        for kek in keks { keyring.macs.append(.init(kekVersion: kek.version, code: try kek.code(for: bytes))) }
    }

    private func unlock(_ kek: ZoneKeyring.KEK, of keyring: ZoneKeyring) throws(KeyringError) -> UnlockedKEK {
        let context = KEKContext(volume: keyring.volume, zone: keyring.zone, kekVersion: kek.version)
        let key = try KEKSharing.unwrap(kek, of: keyring, context: context, resolve: resolve)
        do { return try UnlockedKEK(version: kek.version, kek: key, context: context) } catch { throw .cipher(error) }
    }

    private static func authenticate(_ keyring: ZoneKeyring, under keks: [UnlockedKEK]) throws(KeyringError) {
        let bytes = keyring.authenticatedBytes
        guard keyring.macs.count == keks.count else { throw .notAuthentic }
        for kek in keks {
            guard let mac = keyring.macs.first(where: { $0.kekVersion == kek.version }) else { throw .notAuthentic }
            let expected: [UInt8]
            do { expected = try kek.code(for: bytes) } catch { throw .cipher(error) }
            guard HMACSHA256.isEqual(expected, mac.code) else { throw .notAuthentic }
        }
    }

    private static func assemble(
        _ keyring: ZoneKeyring, keks: [UnlockedKEK], active: KeyVersion
    ) throws(KeyringError) -> ZoneKeys {
        var metadata: [MetadataKeys] = []
        for entry in keyring.metadataKeys {
            guard let kek = keks.first(where: { $0.version == entry.kekVersion }) else { continue }
            do {
                let key = try kek.unwrap(entry.wrapped)
                metadata.append(try MetadataKeys(version: entry.version, key: key, volume: keyring.volume))
            } catch { throw .notAuthentic }
        }
        guard !metadata.isEmpty else { throw .noUsableKEK }
        return ZoneKeys(volume: keyring.volume, zone: keyring.zone, keks: keks, active: active, metadataKeys: metadata)
    }
}
