import Ciphers
import KeyManagement
import Secrets
import TestSupport
import VolumeFormat

/// A keyring under CMKs of this process.
struct SampleKeyring {
    static let volume = UniqueID(high: 1, low: 2)
    let cmks: [InMemoryCMK]
    var keyring: ZoneKeyring
    let keys: ZoneKeys

    var unlocking: KeyringUnlocking { KeyringUnlocking(resolve: resolver(cmks)) }

    init(_ policy: ZoneKeyring.Policy, cmkCount: Int) throws {
        cmks = try (0..<cmkCount).map { try InMemoryCMK("test:\($0)") }
        (keyring, keys) = try KeyringUnlocking(resolve: resolver(cmks)).create(
            volume: Self.volume, zone: .root, policy: policy, cmks: cmks, now: 1000)
    }

    /// Adds a KEK version, active from now on, and authenticates the keyring anew under every version.
    mutating func addKEK() throws {
        let version = KeyVersion(rawValue: UInt32(keyring.keks.count + 1))
        let context = KEKContext(volume: keyring.volume, zone: keyring.zone, kekVersion: version)
        let kek = try RandomBytes.key()
        let wraps = try cmks.enumerated().map { index, cmk in
            ZoneKeyring.Wrap(cmk: UInt8(index), share: 0, wrap: try cmk.wrap(kek, context: context))
        }
        keyring.keks.append(.init(version: version, history: [StateChange(.active, at: 2000)], wraps: wraps))
        try reseal()
    }

    mutating func reseal() throws {
        let bytes = keyring.authenticatedBytes
        keyring.macs = try keyring.keks.filter(\.state.mayDecrypt).map { entry in
            let context = KEKContext(volume: keyring.volume, zone: keyring.zone, kekVersion: entry.version)
            guard let wrap = entry.wraps.first else { throw RootError(.failed, "no wrap") }
            let kek = try cmks[Int(wrap.cmk)].unwrap(wrap.wrap, context: context)
            let unlocked = try UnlockedKEK(version: entry.version, kek: kek, context: context)
            return .init(kekVersion: entry.version, code: try unlocked.code(for: bytes))
        }
    }
}

extension KeyringUnlocking {
    /// Why a keyring does not open; `nil` if it does.
    func failure(_ keyring: ZoneKeyring) -> KeyringError? {
        do throws(KeyringError) {
            _ = try unlock(keyring)
            return nil
        } catch { return error }
    }
}
