import VolumeFormat

/// The proof that destroyed KEK versions are gone: the wraps that old copies of the keyring have are tried, and each is refused.
extension KeyringEditing {
    /// Whether each way to a KEK version that a keyring holds is refused for good. Anything but a refusal for want of a key proves
    /// nothing.
    package func isRefused(_ version: KeyVersion, with keyring: ZoneKeyring) -> Bool {
        guard let kek = keyring.keks.first(where: { $0.version == version }), !kek.wraps.isEmpty else { return false }
        let context = KEKContext(volume: keyring.volume, zone: keyring.zone, kekVersion: version)
        let refusals = kek.wraps.map { wrap -> Bool in
            do throws(KeyringError) {
                _ = try KEKSharing.unwrap(wrap, of: keyring, context: context, resolve: resolve)
                return false
            } catch { return Self.isForGood(error, keyring.cmks[Int(wrap.cmk)]) }
        }
        // One share that nobody opens is enough.
        return keyring.policy == .anyOf ? refusals.allSatisfy { $0 } : refusals.contains(true)
    }

    /// The version key is gone; or the CMK is, and an operator destroyed it.
    private static func isForGood(_ error: KeyringError, _ cmk: ZoneKeyring.CMK) -> Bool {
        guard case .root(let answer, _) = error else { return false }
        switch answer.code {
        case .versionDestroyed: return true
        case .keyNotFound, .destroyed, .unknownRoot: return cmk.state == .destroyed
        default: return false
        }
    }

    /// Takes the wraps of destroyed versions away that were tried in vain.
    package func forgetProven(_ versions: [KeyVersion], in keyring: inout ZoneKeyring) {
        for index in keyring.keks.indices where versions.contains(keyring.keks[index].version) {
            precondition(keyring.keks[index].state == .destroyed, "wraps of a KEK that is in use")
            keyring.keks[index].emptyWraps()
        }
    }
}

extension ZoneKeyring.KEK {
    /// Destroyed, and its wraps are still here to try.
    package var isUnproven: Bool { state == .destroyed && wraps.contains { !$0.wrap.blob.isEmpty } }

    /// Of a version that the CMK alone wrapped an empty wrap stays.
    mutating func emptyWraps() {
        wraps.removeAll { $0.wrap.algorithm == .split }
        for index in wraps.indices { wraps[index].wrap.blob = [] }
    }
}

extension ZoneKeyring {
    /// A former CMK gives way, the oldest first, but none whose wraps are still to be tried; and, while version keys are left to destroy, none
    /// that may have some and is not destroyed itself. False where there is none.
    mutating func removeOldestCMK() -> Bool {
        let tried = keks.filter(\.isUnproven).flatMap { $0.wraps.map { Int($0.cmk) } }
        let isPurging = pending.contains { $0.kind == .purge }
        let oldest = cmks.indices.first { index in
            !cmks[index].isInUse && !tried.contains(index) && (!isPurging || cmks[index].state == .destroyed)
        }
        guard let oldest else { return false }
        cmks.remove(at: oldest)
        for kek in keks.indices {
            for wrap in keks[kek].wraps.indices {
                let index = Int(keks[kek].wraps[wrap].cmk)
                // What is left of a destroyed version says that it was not guarded, under whichever CMK.
                keks[kek].wraps[wrap].cmk = UInt8(index == oldest ? 0 : index > oldest ? index - 1 : index)
            }
        }
        return true
    }
}
