import Secrets
import Synchronization

/// An AES-256-GCM key with an identity of its own, by which a pooled context knows whether it has the key loaded.
package struct AEADKey: ~Copyable, Sendable {
    let key: SecretKey
    /// Never used twice in a process; 0 means no key.
    package let identity: UInt64

    private static let identities = Atomic<UInt64>(0)

    package init(_ key: consuming SecretKey) {
        self.key = key
        identity = Self.identities.add(1, ordering: .relaxed).newValue
    }
}
