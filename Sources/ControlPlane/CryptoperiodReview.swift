import FoundationEssentials
import KeyManagement
import VolumeFormat

/// How a zone's keys stand to the volume's cryptoperiods at a moment. Pure: the clock is an argument.
package struct CryptoperiodReview: Codable, Sendable, Equatable {
    package enum Standing: String, Codable, Sendable {
        case inTime = "in time"
        case dueSoon = "due soon"
        case overdue
        /// Its date lies in the future: the clock, now or then, was wrong. Nothing is done on its account.
        case datedAhead = "dated ahead"
    }

    package struct Item: Codable, Sendable, Equatable {
        package var type: CryptoperiodPolicy.KeyType
        /// Which one: `KEK v3`, a CMK's URI, `metadata key v1`, `DEKs`.
        package var name: String
        /// When the key, or the oldest of them, was made or came into use.
        package var since: Date
        package var due: Date
        package var standing: Standing
        /// It is rotated by itself before the period ends.
        package var automatic: Bool
        /// Of DEKs: how many files' periods have ended, and how many end within the warning.
        package var overdue: UInt64?
        package var dueSoon: UInt64?
        /// Of DEKs: how many directories' names are under DEKs past the period; those are not replaced.
        package var directoriesOverdue: UInt64?
        /// Of DEKs: when they were counted; `nil` while the zone's age alone says that none can be due.
        package var counted: Date?
    }

    package var zone: UInt32
    package var items: [Item]

    /// Dates may be ahead by so many seconds: hosts' clocks differ.
    package static let tolerance: UInt64 = 300

    package init(
        _ keyring: ZoneKeyring, _ policy: CryptoperiodPolicy, ages: DEKAges?, oldestZone: UInt64? = nil, now: UInt64
    ) {
        zone = keyring.zone.rawValue
        items = []
        if let period = policy.periods[.cmk] {
            for cmk in keyring.cmks where cmk.isInUse && cmk.state == .active {
                let since = cmk.history.first { $0.state == .active }?.at ?? 0
                items.append(Self.item(.cmk, cmk.uri, since, period, policy, now))
            }
        }
        if let period = policy.periods[.kek] {
            if let kek = keyring.activeKEK {
                let since = kek.history.first { $0.state == .active }?.at ?? 0
                items.append(Self.item(.kek, "KEK v\(kek.version.rawValue)", since, period, policy, now))
            }
            if let key = keyring.metadataKeys.max(by: { $0.version < $1.version }) {
                items.append(
                    Self.item(.kek, "metadata key v\(key.version.rawValue)", key.created, period, policy, now))
            }
        }
        if let period = policy.periods[.dek] {
            let floor = ages?.floor ?? oldestZone ?? Self.made(keyring)
            var item = Self.item(.dek, "DEKs", floor, period, policy, now)
            if let ages {
                item.counted = Date(timeIntervalSince1970: Double(ages.counted))
                let ended = now > period ? now - period + 1 : 0
                let ending = now + policy.warning > period ? now + policy.warning - period + 1 : 0
                item.overdue = DEKAges.count(ages.made, madeBefore: ended)
                item.dueSoon = DEKAges.count(ages.made, madeBefore: ending) - (item.overdue ?? 0)
                item.directoriesOverdue = DEKAges.count(ages.directories, madeBefore: ended)
            }
            items.append(item)
        }
    }

    /// When a zone was made: none of its DEKs is older, but for those of a tree that came from another zone. Hence `oldestZone`: when the
    /// volume's first zone was made.
    package static func made(_ keyring: ZoneKeyring) -> UInt64 {
        keyring.keks.compactMap { $0.history.first?.at }.min() ?? 0
    }

    private static func item(
        _ type: CryptoperiodPolicy.KeyType, _ name: String, _ since: UInt64, _ period: UInt64,
        _ policy: CryptoperiodPolicy, _ now: UInt64
    ) -> Item {
        let (sum, overflow) = since.addingReportingOverflow(period)
        let due = overflow ? .max : sum
        let standing: Standing =
            if since > now + tolerance { .datedAhead } else if now >= due {
                .overdue
            } else if now + policy.warning >= due {
                .dueSoon
            } else { .inTime }
        return Item(
            type: type, name: name, since: Date(timeIntervalSince1970: Double(since)),
            due: Date(timeIntervalSince1970: Double(due)), standing: standing,
            automatic: policy.automatic.contains(type))
    }

    /// Whether the files' headers are to be counted now: only where something may be due, not more often than `interval`, and now and then
    /// although nothing seems due, since a backup may have brought older files back.
    package static func wantsCount(
        _ keyring: ZoneKeyring, _ policy: CryptoperiodPolicy, ages: DEKAges?, oldestZone: UInt64? = nil,
        reencrypted: Bool,
        now: UInt64
    ) -> Bool {
        guard let period = policy.periods[.dek] else { return false }
        guard let ages, ages.counted <= now else {
            return mayBeDue(oldestZone ?? made(keyring), period, policy, now)
        }
        if reencrypted, mayBeDue(ages.floor, period, policy, now) { return true }
        let passed = now - ages.counted
        if passed >= min(monthSeconds, period / 4) { return true }
        return passed >= policy.interval && mayBeDue(ages.floor, period, policy, now)
    }

    private static let monthSeconds: UInt64 = 30 * 86_400

    private static func mayBeDue(_ floor: UInt64, _ period: UInt64, _ policy: CryptoperiodPolicy, _ now: UInt64) -> Bool
    {
        let (sum, overflow) = floor.addingReportingOverflow(period)
        return !overflow && now + policy.warning >= sum
    }

    /// What is to be rotated now: a tenth of the warning before the end, so that it is done in time.
    package func isToRotate(_ item: Item, _ policy: CryptoperiodPolicy, now: UInt64) -> Bool {
        guard item.automatic, item.standing == .overdue || item.standing == .dueSoon else { return false }
        // What the age of the zone alone suggests is not known until the files are counted.
        if item.type == .dek, item.counted == nil || (item.overdue == 0 && item.dueSoon == 0) { return false }
        return Double(now) >= item.due.timeIntervalSince1970 - Double(policy.warning / 10)
    }

    /// Every DEK made then or before goes with one rotation: those whose period ends within the warning, so that there is not a sweep
    /// every day.
    package static func cutoff(_ policy: CryptoperiodPolicy, now: UInt64) -> UInt64 {
        let period = policy.periods[.dek] ?? 0
        return now + policy.warning > period ? min(now - 1, now + policy.warning - period) : 0
    }
}
