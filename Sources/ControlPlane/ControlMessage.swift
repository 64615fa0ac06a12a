import FoundationEssentials
import VolumeFormat

/// What a command asks a daemon. One JSON object a line.
package struct ControlRequest: Codable, Sendable, Equatable {
    package var verb: ControlVerb
    /// By name; each verb says which it takes.
    package var arguments: [String: String]

    package init(_ verb: ControlVerb, _ arguments: [String: String] = [:]) {
        self.verb = verb
        self.arguments = arguments
    }

    /// Longest request that a daemon reads.
    package static let maximumSize = 64 << 10
}

/// What a daemon can be asked. Each family of verbs names its own.
package struct ControlVerb: RawRepresentable, Codable, Sendable, Hashable {
    package var rawValue: String
    package init(rawValue: String) { self.rawValue = rawValue }
    package init(_ rawValue: String) { self.rawValue = rawValue }

    package static let status = ControlVerb("status")
    /// `zone` or `path`: asks the owner now, and acts on the answer.
    package static let probe = ControlVerb("probe")
    package static let revoke = ControlVerb("revoke")
    package static let restore = ControlVerb("restore")

    /// Those that no others may keep from being answered.
    static let urgent: Set<ControlVerb> = [.probe, .revoke, .restore]
}

/// What a daemon says of its mount.
package struct MountStatus: Codable, Sendable, Equatable {
    package var volume: String
    package var lower: String
    package var mountPoint: String
    package var pid: Int32
    package var mountedAt: Date
    package var readOnly: Bool
    package var transport: String
    /// Why requests do not come by io_uring, and what to type to have it.
    package var transportNote: String?
    /// The highest epoch that this host saw, where the volume is older than that.
    package var rolledBackFrom: UInt64?
    package var epoch: UInt64
    /// A mount before this one ended without unmounting.
    package var afterCrash: Bool
    package var knownInodes: Int
    package var residentKiB: Int
    package var lockedKiB: Int
    /// Damaged objects that programs have met in this mount.
    package var damageEvents: Int
    package var log: String?
    /// The process that purges the mount should the daemon die; `nil` while there is none.
    package var guardian: Int32?
    /// `nil` on a read-only mount, and where the log could not be opened.
    package var audit: AuditLog.Status?
    package var zones: [ZoneStatus]
    /// How each zone's keys stand to the volume's cryptoperiods.
    package var cryptoperiods: [CryptoperiodReview]?
    /// What `init --integrity` has added to the volume.
    package var integrity: [String]?
    /// The revision of the cryptoperiods that this host has seen, where the volume's is older.
    package var policyRevertedFrom: UInt64?

    package init(
        volume: String, lower: String, mountPoint: String, pid: Int32, mountedAt: Date, readOnly: Bool,
        transport: String,
        epoch: UInt64, afterCrash: Bool, knownInodes: Int, residentKiB: Int, lockedKiB: Int, damageEvents: Int,
        log: String?, guardian: Int32?, audit: AuditLog.Status?, zones: [ZoneStatus]
    ) {
        self.volume = volume
        self.lower = lower
        self.mountPoint = mountPoint
        self.pid = pid
        self.mountedAt = mountedAt
        self.readOnly = readOnly
        self.transport = transport
        self.epoch = epoch
        self.afterCrash = afterCrash
        self.knownInodes = knownInodes
        self.residentKiB = residentKiB
        self.lockedKiB = lockedKiB
        self.damageEvents = damageEvents
        self.log = log
        self.guardian = guardian
        self.audit = audit
        self.zones = zones
    }
}

/// A zone and its keys, as the keyring has them.
package struct ZoneStatus: Codable, Sendable, Equatable {
    package struct Key: Codable, Sendable, Equatable {
        package var version: UInt32
        package var state: String
        package var since: Date
        package init(version: UInt32, state: String, since: Date) {
            self.version = version
            self.state = state
            self.since = since
        }
    }

    package struct Root: Codable, Sendable, Equatable {
        package var uri: String
        package var state: String
        package var since: Date
        /// Every state so far, the oldest first.
        package var history: [Entered]?
        package init(uri: String, state: String, since: Date, history: [Entered]) {
            self.uri = uri
            self.state = state
            self.since = since
            self.history = history
        }
    }

    /// A key state of SP 800-57, and when it was entered.
    package struct Entered: Codable, Sendable, Equatable {
        package var state: String
        package var at: Date

        package init(_ change: StateChange) {
            state = change.state.name
            at = Date(timeIntervalSince1970: Double(change.at))
        }

        /// `nil` for a state that this program does not know.
        package var change: StateChange? {
            KeyState.allCases.first { $0.name == state }.map {
                StateChange($0, at: UInt64(max(0, at.timeIntervalSince1970)))
            }
        }
    }

    package var zone: UInt32
    package var policy: String
    package var cmks: [Root]
    package var keks: [Key]
    /// Of a mounted volume.
    package var condition: ZoneKeeper.Condition?

    package init(
        zone: UInt32, policy: String, cmks: [Root], keks: [Key], condition: ZoneKeeper.Condition?
    ) {
        self.zone = zone
        self.policy = policy
        self.cmks = cmks
        self.keks = keks
        self.condition = condition
    }
}
