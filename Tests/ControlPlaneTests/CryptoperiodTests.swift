import ControlPlane
import Foundation
import KeyManagement
import Testing
import VolumeFormat

/// What is due when, with the clock as an argument.
@Suite struct CryptoperiodTests {
    private static let day: UInt64 = 86_400
    private static let made: UInt64 = 1_700_000_000
    private static let period = 730 * day

    private func keyring() -> ZoneKeyring {
        let active = [StateChange(.active, at: Self.made)]
        return ZoneKeyring(
            volume: UniqueID(high: 1, low: 2), zone: .root, generation: 1, policy: .anyOf,
            cmks: [
                .init(uri: "pkcs11:object=old", history: active + [StateChange(.deactivated, at: Self.made + 1)]),
                .init(uri: "pkcs11:object=cmk", history: active),
            ], keks: [.init(version: .first, history: active, wraps: [])],
            metadataKeys: [
                .init(
                    version: .first, kekVersion: .first, created: Self.made,
                    wrapped: WrappedKey([UInt8](repeating: 0, count: 40)))
            ])
    }

    private func ages(_ made: [UInt64: UInt64], counted: UInt64) -> DEKAges {
        var ages = DEKAges(counted: counted)
        ages.files = made.values.reduce(0, +)
        ages.oldest = made.keys.min() ?? 0
        ages.made = made
        return ages
    }

    private func standing(
        _ name: String, at now: UInt64, _ policy: CryptoperiodPolicy = .sp80057, ages: DEKAges? = nil
    ) throws -> CryptoperiodReview.Standing {
        let review = CryptoperiodReview(keyring(), policy, ages: ages, now: now)
        return try #require(review.items.first { $0.name == name }).standing
    }

    @Test(arguments: ["pkcs11:object=cmk", "KEK v1", "metadata key v1", "DEKs"])
    func standingsChangeOnTheSecond(name: String) throws {
        let (end, warning) = (Self.made + Self.period, CryptoperiodPolicy.defaultWarning)
        #expect(try standing(name, at: Self.made) == .inTime)
        #expect(try standing(name, at: end - warning - 1) == .inTime)
        #expect(try standing(name, at: end - warning) == .dueSoon)
        #expect(try standing(name, at: end - 1) == .dueSoon)
        #expect(try standing(name, at: end) == .overdue)
        #expect(try standing(name, at: Self.made - CryptoperiodReview.tolerance) == .inTime)
        #expect(try standing(name, at: Self.made - CryptoperiodReview.tolerance - 1) == .datedAhead)
    }

    @Test func onlyKeysInUseCount() {
        let review = CryptoperiodReview(keyring(), .sp80057, ages: nil, now: Self.made)
        #expect(review.items.map(\.name) == ["pkcs11:object=cmk", "KEK v1", "metadata key v1", "DEKs"])
        #expect(CryptoperiodReview(keyring(), .none, ages: nil, now: .max / 2).items.isEmpty)
    }

    @Test func filesAreCountedByAge() throws {
        let now = Self.made + Self.period
        let old = ages([Self.made - 10: 3, Self.made + 10 * Self.day: 5, Self.made + 100 * Self.day: 7], counted: now)
        let review = CryptoperiodReview(keyring(), .sp80057, ages: old, now: now)
        let item = try #require(review.items.last)
        #expect(item.overdue == 3 && item.dueSoon == 5 && item.standing == .overdue)
        #expect(item.since == Date(timeIntervalSince1970: Double(Self.made - 10)))
    }

    /// Once a day when something may be due, once a month otherwise, never while the zone is too young for it.
    @Test func countingIsRare() {
        func wants(_ ages: DEKAges?, reencrypted: Bool = false, at now: UInt64) -> Bool {
            CryptoperiodReview.wantsCount(keyring(), .sp80057, ages: ages, reencrypted: reencrypted, now: now)
        }
        let end = Self.made + Self.period
        let warned = end - CryptoperiodPolicy.defaultWarning
        #expect(!wants(nil, at: warned - 1))
        #expect(wants(nil, at: warned))
        let young = ages([warned - 100 * Self.day: 1], counted: warned)
        #expect(!wants(young, at: warned + 29 * Self.day))
        #expect(wants(young, at: warned + 30 * Self.day))
        let old = ages([Self.made: 1], counted: warned)
        #expect(!wants(old, at: warned + Self.day - 1))
        #expect(wants(old, at: warned + Self.day))
        #expect(wants(old, reencrypted: true, at: warned + 1))
        #expect(!wants(young, reencrypted: true, at: warned + 1))
        // Counted in what is the future now: not to be believed.
        #expect(wants(old, at: warned - 1) == false && wants(ages([:], counted: end + 1), at: end))
        #expect(!CryptoperiodReview.wantsCount(keyring(), .none, ages: nil, reencrypted: false, now: end))
    }

    @Test func rotationBeginsBeforeTheEnd() throws {
        var policy = CryptoperiodPolicy.sp80057
        policy.automatic = [.kek, .dek]
        let end = Self.made + Self.period
        let begins = end - policy.warning / 10
        func isToRotate(_ name: String, _ policy: CryptoperiodPolicy, _ ages: DEKAges?, at now: UInt64) throws -> Bool {
            let review = CryptoperiodReview(keyring(), policy, ages: ages, now: now)
            let item = try #require(review.items.first { $0.name == name })
            return review.isToRotate(item, policy, now: now)
        }
        let counted = ages([Self.made: 1], counted: begins - 1)
        for name in ["KEK v1", "metadata key v1", "DEKs"] {
            #expect(try !isToRotate(name, policy, counted, at: begins - 1))
            #expect(try isToRotate(name, policy, counted, at: begins))
            #expect(try isToRotate(name, policy, counted, at: end + 1))
            #expect(try !isToRotate(name, .sp80057, counted, at: end + 1))
            #expect(try !isToRotate(name, policy, counted, at: Self.made - Self.day))
        }
        #expect(try !isToRotate("pkcs11:object=cmk", policy, counted, at: end + 1))
        // The zone's age alone is a guess.
        #expect(try !isToRotate("DEKs", policy, nil, at: end + 1))
        #expect(try !isToRotate("DEKs", policy, ages([:], counted: Self.made), at: end + 1))
        // What ends within the warning goes along; nothing made now does.
        #expect(CryptoperiodReview.cutoff(policy, now: begins) == begins + policy.warning - Self.period)
        #expect(CryptoperiodReview.cutoff(policy, now: 1) == 0)
    }

    @Test func policiesKeepTheirSettings() {
        var policy = CryptoperiodPolicy(periods: [.dek: 40, .kek: 50], automatic: [.dek])
        policy.warning = 20
        policy.revision = 7
        var settings: [VolumeSetting: UInt64] = [.audited: 1, .cmkPeriod: 9]
        policy.store(in: &settings)
        #expect(settings[.audited] == 1 && settings[.cmkPeriod] == nil)
        #expect(CryptoperiodPolicy(settings) == policy && policy.fault == nil)
        var none = CryptoperiodPolicy.none
        none.revision = 8
        none.store(in: &settings)
        #expect(settings == [.audited: 1, .policyRevision: 8])
        #expect(CryptoperiodPolicy([:]).isNone)
        // Bits that are not known, and absurd values, do nothing absurd.
        let odd = CryptoperiodPolicy([.dekPeriod: .max, .automaticRotation: .max, .warnPeriod: .max])
        #expect(
            odd.periods[.dek] == CryptoperiodPolicy.bounds.upperBound && odd.automatic == [.dek] && odd.fault == nil)
    }

    @Test func faults() {
        #expect(CryptoperiodPolicy(periods: [.dek: 9]).fault != nil)
        #expect(CryptoperiodPolicy(periods: [.cmk: 90 * Self.day], automatic: [.cmk]).fault != nil)
        #expect(CryptoperiodPolicy(periods: [.dek: 90 * Self.day], automatic: [.kek]).fault != nil)
        #expect(CryptoperiodPolicy(periods: [.dek: 50 * Self.day]).fault != nil)
        #expect(CryptoperiodPolicy(periods: [.dek: 60 * Self.day]).fault == nil)
        #expect(CryptoperiodPolicy.sp80057.fault == nil && CryptoperiodPolicy.pciDSS.fault == nil)
    }
}

/// A clock that is set makes no storm.
@Suite struct ClockWatchTests {
    private static let day: UInt64 = 86_400

    private final class Watch {
        private var watch: ClockWatch
        init(_ latest: UInt64 = 0) { watch = ClockWatch(latest: latest) }
        var latest: UInt64 { watch.latest }
        func look(wall: UInt64, running: UInt64, quiet: UInt64) -> Bool {
            watch.look(wall: wall, running: running, quiet: quiet)
        }
    }

    @Test(arguments: [Int64(3_600), 315_360_000, -3_600, -315_360_000])
    func aJumpIsWaitedOut(jump: Int64) {
        let watch = Watch()
        var wall: UInt64 = 1_700_000_000
        #expect(watch.look(wall: wall, running: 100, quiet: Self.day))
        #expect(watch.look(wall: wall + 3600, running: 3700, quiet: Self.day))
        wall = UInt64(Int64(wall + 3600) + jump)
        #expect(!watch.look(wall: wall, running: 3700, quiet: Self.day))
        #expect(!watch.look(wall: wall + Self.day - 1, running: 3700 + Self.day - 1, quiet: Self.day))
        #expect(watch.look(wall: wall + Self.day, running: 3700 + Self.day, quiet: Self.day))
    }

    /// Set wrongly and right again within the wait: nothing was done in between.
    @Test func wrongAndRightAgain() {
        let watch = Watch()
        let wall: UInt64 = 1_700_000_000
        #expect(watch.look(wall: wall, running: 0, quiet: Self.day))
        #expect(!watch.look(wall: wall * 2, running: 10, quiet: Self.day))
        #expect(!watch.look(wall: wall + 20, running: 20, quiet: Self.day))
        #expect(watch.look(wall: wall + 20 + Self.day, running: 20 + Self.day, quiet: Self.day))
        #expect(watch.latest == wall + 20 + Self.day)
    }

    @Test func slewingIsNoJump() {
        let watch = Watch()
        for minute in 0..<1000 {
            let running = UInt64(minute) * 60
            #expect(watch.look(wall: 1_700_000_000 + running + running / 1000, running: running, quiet: Self.day))
        }
    }

    /// A machine that comes up with less than was seen before it went down.
    @Test func aClockBehindTheHostsMemory() {
        let watch = Watch(1_700_000_000)
        #expect(!watch.look(wall: 1_600_000_000, running: 50, quiet: Self.day))
        #expect(!watch.look(wall: 1_600_003_600, running: 3650, quiet: Self.day))
        #expect(watch.look(wall: 1_600_000_000 + Self.day, running: 50 + Self.day, quiet: Self.day))
        let later = Watch(1_700_000_000)
        #expect(later.look(wall: 1_700_000_000 + 900 * Self.day, running: 50, quiet: Self.day))
    }
}
