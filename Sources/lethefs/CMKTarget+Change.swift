import ControlPlane
import KeyManagement
import VolumeFormat

extension CMKTarget {
    /// Has the owner act, then each daemon ask it, and notes the new state: before the act where it takes the key away, since a keyring can
    /// be sealed only while its key is there; after it where it gives the key back.
    ///
    /// An act that fails may have happened in part, or come about later: the owner is asked what is so, and that is noted and recorded.
    func change(
        to state: KeyState, _ act: (any CustomerMasterKey) throws(RootError) -> Void
    ) -> CMKOutcome {
        let cmk: any CustomerMasterKey
        do throws(RootError) { cmk = try roots.resolve(named) } catch {
            return CMKOutcome(
                uri: Roots.withoutPIN(named), state: "unknown", zones: [], failure: error.detail,
                error: Failure(error, uri: Roots.withoutPIN(named)))
        }
        let isBack = state == .active
        var notNoted = isBack ? places.map { _ in nil } : places.map { $0.note(state, isShown: false, roots) }
        let start = BootClock.now
        var refusal: RootError?
        do throws(RootError) { try act(cmk) } catch { refusal = error }
        let acknowledged = BootClock.now
        let actual = refusal == nil ? state : cmk.stateNow
        if let actual, actual != state, !isBack {
            notNoted = places.map { $0.note(actual, isShown: true, roots) }
        }
        var zones = places.map { $0.asked(since: acknowledged) }
        if isBack, actual == .active { notNoted = places.map { $0.note(state, isShown: true, roots) } }
        for index in zones.indices {
            zones[index].notNoted = notNoted[index]
            zones[index].isAudited = places[index].audit(state, cmk.uri, zones[index], refusal, actual)
        }
        let isUsable = actual == .destroyed ? false : try? cmk.isUsableAtOwner()
        return CMKOutcome(
            uri: cmk.uri, state: actual?.name ?? "unknown",
            ownerMilliseconds: refusal == nil ? ((acknowledged - start) * 1e5).rounded() / 100 : nil,
            usableAtOwner: isUsable, zones: zones, failure: refusal?.detail,
            error: refusal.map { Failure($0, uri: Roots.withoutPIN(named), now: actual) })
    }
}

extension CustomerMasterKey {
    /// What the owner says that the key is; `nil` where it does not say.
    fileprivate var stateNow: KeyState? {
        do throws(RootError) { return try describe().enabled ? .active : .suspended } catch {
            switch error.code {
            case .keyNotFound, .destroyed: return .destroyed
            case .disabled, .pendingDeletion: return .suspended
            default: return nil
            }
        }
    }
}

extension Failure {
    /// Of a change that a CMK's owner did not make as asked, and the state in which it shows the key.
    fileprivate init(_ error: RootError, uri: String, now: KeyState?) {
        self.init(error, uri: uri)
        if let now {
            meaning = "The key is \(now.name) now: its owner says so."
        } else {
            meaning =
                "Whether the key was changed is not known, and may show later. What was noted before the act stays noted."
            remedy = "when the owner answers, repeat the command; lethefs cmk enable  if the key is to be used"
        }
    }
}

extension CMKTarget.Place {
    /// Leaves a record of what was done. False where there is no log, or it could not be written.
    fileprivate func audit(
        _ state: KeyState, _ uri: String, _ outcome: CMKOutcome.Zone, _ refusal: RootError?, _ actual: KeyState?
    ) -> Bool {
        let kind: AuditKind
        var fields = ["cmk": uri]
        switch state {
        case _ where refusal != nil:
            kind = .cmkChangeFailed
            fields["asked"] = state.name
            fields["state"] = actual?.name ?? "unknown"
            fields["answer"] = refusal?.detail
        case .active: kind = .cmkEnabled
        case .destroyed: kind = .cmkDestroyed
        default: kind = .cmkDisabled
        }
        fields["zone-state"] = outcome.state
        fields["milliseconds"] = outcome.milliseconds.map { "\($0)" }
        return AuditNote.leave(
            daemon.map { .mounted($0, inside: "") } ?? .lower(lower), kind, zone: ZoneID(rawValue: zone), fields)
    }

    /// Has the zone's daemon ask the owner now; returns when the zone is as the answer demands.
    fileprivate func asked(since start: Double) -> CMKOutcome.Zone {
        var zone = CMKOutcome.Zone(zone: zone, mountPoint: daemon?.mountPoint, lower: lower)
        guard let daemon else { return zone }
        do {
            let condition: ZoneKeeper.Condition = try DaemonClient.ask(daemon, .probe, ["zone": "\(zone.zone)"])
            zone.state = condition.state
            zone.condition = condition
            zone.milliseconds = ((BootClock.now - start) * 1e5).rounded() / 100
        } catch let failure as Failure { zone.failure = failure.what } catch { zone.failure = "\(error)" }
        return zone
    }
}
