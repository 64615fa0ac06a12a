/// The keyring of a zone: `.lethefs/zones/<id>` (FORMAT §6). It holds the KEKs wrapped by CMKs, and the zone's metadata
/// keys wrapped by KEKs. Every usable KEK version authenticates the whole, so that nobody who lacks one can add another.
package struct ZoneKeyring: Equatable, Sendable {
    package static let magic = Array("LETHEZON".utf8)
    package static let formatVersion: UInt16 = 1
    /// Longest keyring that is read.
    package static let maximumEncodedSize = 4 << 20
    /// Most KEKs, and most metadata keys.
    package static let maximumKEKs = 4096
    /// Most CMKs, former ones included.
    package static let maximumCMKs = 16
    static let object: StaticString = "zone keyring"

    /// Which of a zone's CMKs it takes to open it.
    package enum Policy: UInt8, Sendable, CaseIterable {
        /// Each CMK alone unwraps the KEK.
        case anyOf = 0
        /// The KEK is split by exclusive-or; each CMK unwraps one share.
        case allOf = 1
    }

    /// A CMK that wraps this zone's KEKs.
    package struct CMK: Equatable, Sendable {
        /// Without secrets; 1 to 4096 bytes of UTF-8.
        package var uri: String
        package var history: [StateChange]
        package init(uri: String, history: [StateChange]) {
            self.uri = uri
            self.history = history
        }
        package var state: KeyState { history.last?.state ?? .preActivation }
        /// It wraps KEKs. One that was rotated away does not, whatever became of it after.
        package var isInUse: Bool { !history.contains { $0.state == .deactivated } }
    }

    /// One wrap of a KEK version, by the CMK at `cmk` in `cmks`.
    package struct Wrap: Equatable, Sendable {
        package var cmk: UInt8
        package var share: UInt8
        package var wrap: RootWrap
        package init(cmk: UInt8, share: UInt8, wrap: RootWrap) {
            self.cmk = cmk
            self.share = share
            self.wrap = wrap
        }
    }

    /// One version of the zone's KEK.
    package struct KEK: Equatable, Sendable {
        package var version: KeyVersion
        package var history: [StateChange]
        package var wraps: [Wrap]
        package init(version: KeyVersion, history: [StateChange], wraps: [Wrap]) {
            self.version = version
            self.history = history
            self.wraps = wraps
        }
        package var state: KeyState { history.last?.state ?? .preActivation }
    }

    /// One version of the zone's metadata key, which seals link targets and the attributes of special files.
    package struct MetadataKey: Equatable, Sendable {
        package var version: KeyVersion
        package var kekVersion: KeyVersion
        package var created: UInt64
        package var wrapped: WrappedKey
        package init(version: KeyVersion, kekVersion: KeyVersion, created: UInt64, wrapped: WrappedKey) {
            self.version = version
            self.kekVersion = kekVersion
            self.created = created
            self.wrapped = wrapped
        }
    }

    /// A MAC over `authenticatedBytes` by the key derived from one KEK version.
    package struct MAC: Equatable, Sendable {
        package var kekVersion: KeyVersion
        package var code: [UInt8]
        package init(kekVersion: KeyVersion, code: [UInt8]) {
            self.kekVersion = kekVersion
            self.code = code
        }
    }

    package var features: FeatureFlags = []
    package var volume: UniqueID
    package var zone: ZoneID
    package var generation: UInt64
    package var policy: Policy
    package var cmks: [CMK]
    package var keks: [KEK]
    package var metadataKeys: [MetadataKey]
    /// What is still to be done in this zone; at most `PendingWork.maximumCount`.
    package var pending: [PendingWork] = []
    package var macs: [MAC] = []

    package init(
        volume: UniqueID, zone: ZoneID, generation: UInt64, policy: Policy, cmks: [CMK], keks: [KEK],
        metadataKeys: [MetadataKey]
    ) {
        self.volume = volume
        self.zone = zone
        self.generation = generation
        self.policy = policy
        self.cmks = cmks
        self.keks = keks
        self.metadataKeys = metadataKeys
    }

    /// The version that wraps new keys: the newest active one.
    package var activeKEK: KEK? { keks.filter { $0.state == .active }.max { $0.version < $1.version } }
}
