import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import Logging
import Storage
import Synchronization
import VolumeEngine
import VolumeFormat

/// Looks after the cryptoperiods of a mounted volume: counts the DEKs' ages when something may be due, tells before a period ends,
/// rotates what the policy wants rotated, and records it. On a thread of its own, behind all other work.
final class CryptoperiodKeeper: Sendable {
    private let rotation: Rotation
    private let log: Logger
    private let volume: UniqueID
    // Leaf lock.
    private let memory: Mutex<CryptoperiodMemory>
    // Used by the thread alone.
    private let watch: Mutex<ClockWatch>
    /// The policy's revision that this host has seen, where the volume's is older: somebody put an older description back.
    var revertedFrom: UInt64? { reverted.withLock { $0 } }
    private let reverted: Mutex<UInt64?>
    private let woken = Atomic<Bool>(false)

    init(_ rotation: Rotation, log: Logger) {
        self.rotation = rotation
        self.log = log
        volume = rotation.mount.volume.description.volume
        let kept = rotation.host.readCryptoperiods(volume)
        let revision = rotation.mount.settings[.policyRevision] ?? 0
        reverted = Mutex(revision < kept.revision ? kept.revision : nil)
        memory = Mutex(kept)
        watch = Mutex(ClockWatch(latest: kept.latest))
    }

    var policy: CryptoperiodPolicy { CryptoperiodPolicy(rotation.mount.settings) }

    /// How each zone stands now, by what is known.
    func reviews(now: UInt64 = Volume.now) -> [CryptoperiodReview] {
        let policy = policy
        guard !policy.isNone else { return [] }
        let kept = memory.withLock { $0 }
        return rotation.mount.zoneKeyrings.map {
            CryptoperiodReview(
                $0, policy, ages: kept.zones["\($0.zone.rawValue)"]?.ages, oldestZone: oldestZone, now: now)
        }
    }

    /// The operator has set another policy: what was told and begun by the old one says nothing of it.
    func policyChanged() {
        reverted.withLock { $0 = nil }
        let revision = policy.revision
        change { memory in
            memory.revision = max(memory.revision, revision)
            for zone in memory.zones.keys {
                memory.zones[zone]?.told = [:]
                memory.zones[zone]?.begun = [:]
            }
        }
        woken.store(true, ordering: .releasing)
    }

    func start() {
        if let revertedFrom {
            log.error(
                "the volume's cryptoperiods are older than this host has seen (revision \(revertedFrom)): an older description was put back; lethefs policy set  settles it"
            )
            rotation.audit?.append(.cryptoperiodWarning, ["key": "policy", "reverted-from": "\(revertedFrom)"])
        }
        PlainThread.detach { [self] in
            _ = linux_set_thread_nice(19)
            while !rotation.sweeps.isEnding {
                look()
                // Not in one piece: an unmount does not wait.
                var ticks = 10 * Int(min(60, policy.interval))
                while ticks > 0, !rotation.sweeps.isEnding, !woken.exchange(false, ordering: .acquiringAndReleasing) {
                    usleep(100_000)
                    ticks -= 1
                }
            }
        }
    }

    /// One look at the clock and all zones.
    private func look() {
        let policy = policy
        let before = memory.withLock { $0 }
        if policy.revision > before.revision { change { $0.revision = policy.revision } }
        guard !policy.isNone else { return keep(before) }
        let now = Volume.now
        let quiet = min(86_400, policy.shortest ?? 86_400)
        let (isBelieved, latest) = watch.withLock { watch in
            (watch.look(wall: now, running: Self.running, quiet: quiet), watch.latest)
        }
        change { $0.latest = latest }
        for keyring in rotation.mount.zoneKeyrings where !rotation.sweeps.isEnding {
            guard let zone = try? rotation.mount.volume.zone(keyring.zone), zone.isOpen else { continue }
            look(after: keyring, policy, now: now, isBelieved: isBelieved)
        }
        keep(before)
    }

    private func look(after keyring: ZoneKeyring, _ policy: CryptoperiodPolicy, now: UInt64, isBelieved: Bool) {
        let zone = keyring.zone
        let isWorking = keyring.pending.contains { $0.kind == .reencrypt }
        let kept = self.kept(zone)
        let isAwaited = !kept.awaited.isEmpty && !isWorking
        // A tree that comes from another zone brings older DEKs along.
        if keyring.pending.contains(where: { $0.kind == .assign }) { change(zone) { $0.ages = nil } }
        let isWanted = CryptoperiodReview.wantsCount(
            keyring, policy, ages: self.kept(zone).ages, oldestZone: oldestZone, reencrypted: isAwaited, now: now)
        let isKnown = isWanted ? count(zone, policy) : true
        if isAwaited, isKnown { recordDone(keyring, policy, now) }
        let review = CryptoperiodReview(
            keyring, policy, ages: self.kept(zone).ages, oldestZone: oldestZone, now: now)
        for item in review.items {
            tell(item, zone, policy, now)
            guard isBelieved, !isWorking, review.isToRotate(item, policy, now: now) else { continue }
            rotate(item, zone, policy, now)
        }
    }

    private var oldestZone: UInt64? { rotation.mount.zoneKeyrings.map(CryptoperiodReview.made).min() }

    /// False when they could not be counted.
    private func count(_ zone: ZoneID, _ policy: CryptoperiodPolicy) -> Bool {
        guard let period = policy.periods[.dek] else { return true }
        do {
            let ages = try rotation.countAges(zone, period: period)
            if ages.failed > 0 {
                log.warning(
                    "zone \(zone.rawValue): the age of \(ages.failed) objects' DEKs is not known: their headers cannot be read"
                )
            }
            change(zone) { $0.ages = ages }
            return true
        } catch {
            log.warning("zone \(zone.rawValue): DEKs were not counted: \(Self.words(error))")
            return false
        }
    }

    /// Tells what is due or past it, once for each standing, and again now and then while it lasts.
    private func tell(_ item: CryptoperiodReview.Item, _ zone: ZoneID, _ policy: CryptoperiodPolicy, _ now: UInt64) {
        let isFalseAlarm = item.type == .dek && (item.counted == nil || (item.overdue == 0 && item.dueSoon == 0))
        guard item.standing != .inTime, !isFalseAlarm else {
            return change(zone) { zone in
                zone.told = zone.told.filter { !$0.key.hasPrefix(item.name + "/") }
            }
        }
        let key = "\(item.name)/\(item.standing.rawValue)"
        let again = max(policy.interval, min(7 * 86_400, policy.warning))
        if let last = kept(zone).told[key], last <= now, now < last + again { return }
        change(zone) { $0.told[key] = now }
        let due = item.due.formatted(.iso8601)
        let what =
            switch item.standing {
            case .overdue: "its cryptoperiod ended at \(due)"
            case .dueSoon: "its cryptoperiod ends at \(due)"
            case .datedAhead: "it is dated ahead of the clock: \(item.since.formatted(.iso8601))"
            case .inTime: "in time"
            }
        let next = item.automatic ? "it is rotated by itself" : Self.remedy(item, rotation.lower)
        log.warning("zone \(zone.rawValue): \(item.name): \(what); \(next)")
        rotation.audit?.append(.cryptoperiodWarning, zone: zone, Self.fields(item))
    }

    private func rotate(_ item: CryptoperiodReview.Item, _ zone: ZoneID, _ policy: CryptoperiodPolicy, _ now: UInt64) {
        let key = item.type == .dek ? "DEKs" : item.name.hasPrefix("KEK") ? "KEK" : "metadata key"
        // A rotation that fails, or a clock that goes astray, does not make one after another.
        if let last = kept(zone).begun[key], last <= now, now < last + policy.interval { return }
        guard !rotation.sweeps.isRunning(zone),
            rotation.mount.keyring(zone)?.pending.contains(where: { $0.kind != .purge }) == false
        else { return }
        change(zone) { $0.begun[key] = now }
        log.notice("zone \(zone.rawValue): \(item.name): rotated by the volume's policy")
        do {
            switch key {
            case "KEK":
                let report = try rotation.rotateKEK(zone, compromised: false)
                let done = ["to": "KEK v\(report.kek)", "headers": "\(report.rewrapped)"]
                rotation.audit?.append(
                    .cryptoperiodRotated, zone: zone, Self.fields(item).merging(done) { $1 })
            case "DEKs":
                let cutoff = CryptoperiodReview.cutoff(policy, now: now)
                try rotation.beginOverdue(zone, cutoff: cutoff)
                change(zone) { $0.awaited[key] = Self.fields(item) }
            default:
                try rotation.renewMetadata(zone)
                change(zone) { $0.awaited[key] = Self.fields(item) }
            }
        } catch {
            log.error("zone \(zone.rawValue): \(item.name) could not be rotated: \(Self.words(error))")
            rotation.audit?.append(
                .cryptoperiodWarning, zone: zone, Self.fields(item).merging(["failed": Self.words(error)]) { $1 })
        }
    }

    /// What went on in the background is over: done, or ended by command before it was.
    private func recordDone(_ keyring: ZoneKeyring, _ policy: CryptoperiodPolicy, _ now: UInt64) {
        let zone = keyring.zone
        let kept = kept(zone)
        for (key, fields) in kept.awaited {
            var fields = fields
            let isDone =
                key == "DEKs"
                ? kept.ages.map { $0.isFree(ofOlderThan: policy.periods[.dek] ?? 0, now: now) } ?? false
                : keyring.metadataKeys.count == 1
            guard isDone else {
                log.notice(
                    "zone \(zone.rawValue): \(fields["key"] ?? ""): the rotation by the volume's policy was ended before it was done"
                )
                continue
            }
            if let ages = kept.ages, fields["type"] == "dek" {
                fields["oldest"] = Date(timeIntervalSince1970: Double(ages.floor)).formatted(.iso8601)
                fields["files"] = "\(ages.files)"
            }
            rotation.audit?.append(.cryptoperiodRotated, zone: zone, fields)
            log.notice("zone \(zone.rawValue): \(fields["key"] ?? ""): the rotation by the volume's policy is done")
        }
        change(zone) { $0.awaited = [:] }
    }

    private static func fields(_ item: CryptoperiodReview.Item) -> [String: String] {
        var fields = [
            "key": item.name, "type": item.type.rawValue, "standing": item.standing.rawValue,
            "since": item.since.formatted(.iso8601), "due": item.due.formatted(.iso8601),
            "automatic": item.automatic ? "yes" : "no",
        ]
        if let overdue = item.overdue { fields["overdue"] = "\(overdue)" }
        return fields
    }

    private static func remedy(_ item: CryptoperiodReview.Item, _ lower: String) -> String {
        switch item.type {
        case .cmk: "lethefs cmk rotate \(lower)"
        // A re-encryption of the zone brings a new metadata key along.
        case .kek where item.name.hasPrefix("metadata"): "lethefs reencrypt \(lower)"
        case .kek: "lethefs kek rotate \(lower)"
        case .dek: "lethefs reencrypt \(lower)"
        }
    }

    private static func words(_ error: any Error) -> String { (error as? Failure)?.what ?? "\(error)" }

    private func kept(_ zone: ZoneID) -> CryptoperiodMemory.Zone {
        memory.withLock { $0.zones["\(zone.rawValue)"] ?? .init() }
    }

    private func change(_ zone: ZoneID, _ change: (inout CryptoperiodMemory.Zone) -> Void) {
        memory.withLock { change(&$0.zones["\(zone.rawValue)", default: .init()]) }
    }

    private func change(_ change: (inout CryptoperiodMemory) -> Void) { memory.withLock { change(&$0) } }

    /// Writes what changed; the clock alone is worth a write an hour.
    private func keep(_ before: CryptoperiodMemory) {
        let now = memory.withLock { $0 }
        var compared = now
        if now.latest < before.latest + 3600, now.latest >= before.latest { compared.latest = before.latest }
        guard compared != before else {
            return change { $0.latest = before.latest }
        }
        do { try rotation.host.writeCryptoperiods(volume, now) } catch {
            log.warning("what is known of the cryptoperiods is not kept: \(Self.words(error))")
        }
    }

    /// Seconds since the machine's start, sleep included.
    private static var running: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return UInt64(time.tv_sec)
    }
}
