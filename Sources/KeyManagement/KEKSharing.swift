import Ciphers
import Secrets
import VolumeFormat

/// Divides a KEK over CMKs by the zone's policy, and puts it together again.
enum KEKSharing {
    /// `guarded`: by version keys, where owners make them.
    ///
    /// any-of: each CMK wraps the KEK. all-of: each wraps one share, and the exclusive-or of all shares is the KEK.
    static func wrap(
        _ kek: borrowing SecretKey, policy: ZoneKeyring.Policy, cmks: [any CustomerMasterKey], context: KEKContext,
        guarded: Bool = true
    ) throws -> [ZoneKeyring.Wrap] {
        var wraps: [ZoneKeyring.Wrap] = []
        var remainder = kek.copy()
        for (index, cmk) in cmks.enumerated() {
            let last = index == cmks.count - 1
            let share = policy == .allOf && !last ? try RandomBytes.key() : remainder.copy()
            if policy == .allOf && !last { remainder = exclusiveOr(remainder, share) }
            var bound = context
            bound.share = policy == .allOf ? UInt8(index + 1) : 0
            do {
                let wrap = try guarded ? cmk.wrapVersion(share, context: bound) : cmk.wrap(share, context: bound)
                wraps.append(ZoneKeyring.Wrap(cmk: UInt8(index), share: bound.share, wrap: wrap))
            } catch {
                throw KeyringError.root(error, uri: cmk.uri)
            }
        }
        return wraps
    }

    /// Puts the KEK together. any-of: the first CMK that answers well; the error is the mildest otherwise, since the zone is lost only where
    /// every owner says no. all-of: each is asked, whatever the others say, and the error is the gravest: one owner's outage hides no
    /// other's no. Of errors as grave the first.
    static func unwrap(
        _ kek: ZoneKeyring.KEK, of keyring: ZoneKeyring, context: KEKContext, resolve: KeyringUnlocking.Resolver
    ) throws(KeyringError) -> SecretKey {
        switch keyring.policy {
        case .anyOf:
            var mildest: KeyringError?
            for wrap in kek.wraps {
                do { return try unwrap(wrap, of: keyring, context: context, resolve: resolve) } catch {
                    if mildest.map({ error.isMoreHopeful(than: $0) }) ?? true { mildest = error }
                }
            }
            throw mildest ?? .noUsableKEK
        case .allOf:
            // A CMK that was rotated away stays in the list, for its history.
            let inUse = keyring.cmks.count { $0.isInUse }
            guard kek.wraps.count == inUse, Set(kek.wraps.map(\.share)).count == kek.wraps.count else {
                throw .notAuthentic
            }
            var sum = SecretKey { _ in }
            var gravest: KeyringError?
            for wrap in kek.wraps {
                do throws(KeyringError) {
                    sum = exclusiveOr(sum, try unwrap(wrap, of: keyring, context: context, resolve: resolve))
                } catch {
                    if gravest.map({ $0.gravity < error.gravity }) ?? true { gravest = error }
                }
            }
            if let gravest { throw gravest }
            return sum
        }
    }

    /// The KEK, or the share of it, that one wrap holds.
    static func unwrap(
        _ wrap: ZoneKeyring.Wrap, of keyring: ZoneKeyring, context: KEKContext, resolve: KeyringUnlocking.Resolver
    ) throws(KeyringError) -> SecretKey {
        let uri = keyring.cmks[Int(wrap.cmk)].uri
        var bound = context
        bound.share = wrap.share
        guard (wrap.share == 0) == (keyring.policy == .anyOf) else { throw .notAuthentic }
        do { return try resolve(uri).unwrap(wrap.wrap, context: bound) } catch { throw .root(error, uri: uri) }
    }

    private static func exclusiveOr(_ left: borrowing SecretKey, _ right: borrowing SecretKey) -> SecretKey {
        left.exclusiveOr(right)
    }
}

extension KeyringError {
    /// Of any-of. A CMK that nobody asked can say neither yes nor no here: what those say that were asked counts.
    fileprivate func isMoreHopeful(than other: KeyringError) -> Bool {
        if gravity == .notAsked { return false }
        return other.gravity == .notAsked || gravity < other.gravity
    }
}

extension SecretKey {
    /// The exclusive-or of two keys.
    package borrowing func exclusiveOr(_ other: borrowing SecretKey) -> SecretKey {
        withBytes { left in
            other.withBytes { right in
                SecretKey { output in
                    for index in output.indices { output[index] = left[index] ^ right[index] }
                }
            }
        }
    }
}
