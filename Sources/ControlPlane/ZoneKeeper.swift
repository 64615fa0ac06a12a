import CLinux
import FoundationEssentials
import KeyManagement
import Storage
import Synchronization
import VolumeEngine
import VolumeFormat

/// Watches over one zone's keys: asks their owner again and again, takes them away when it says no or nothing, and brings them back.
///
/// One thread decides and carries out; calls to the owner run on threads of their own, since they may hang, and never keep the
/// decider from ending a lease in time. Nothing that programs wait for waits for either.
package final class ZoneKeeper: Sendable {
    package enum Event: Sendable {
        /// The owner did not answer well, for the first time since it last did; the lease runs on.
        case outage(ZoneID, KeyringError)
        /// It does again.
        case outageOver(ZoneID)
        /// The owner has unwrapped the open zone's KEK: its lease begins anew.
        case renewed(ZoneID)
        case revoked(RevocationReport)
        /// The zone's keys are back; how long it was closed, in seconds.
        case restored(ZoneID, afterSeconds: Double)
    }

    /// How a zone stands, for `status` and the commands.
    package struct Condition: Codable, Sendable, Equatable {
        /// "open" or "revoked".
        package var state: String
        package var since: Date
        /// Why it is revoked; or, of an open one, what the owner last answered amiss.
        package var cause: String?
        /// Revoked by hand: it stays so until it is restored by hand.
        package var isHeld: Bool
        /// Of an open zone: seconds until its keys go, if the owner is not heard.
        package var leaseSeconds: Double?
        package var lastRevocation: RevocationReport?
    }

    package enum Outcome: Sendable {
        case condition(Condition)
        case failure(KeyringError)
    }

    package let zone: Zone
    private let revocation: Revocation
    private let mount: VolumeMount
    private let timing: LeaseTiming
    private let onEvent: @Sendable (Event) -> Void
    private let onLease: @Sendable (ZoneID, Double?) -> Void
    private let describe: @Sendable (KeyringError) -> String
    private let mailbox = Mailbox<Message>()
    // Leaf lock: what others may see of the keeper's state.
    private let shown: Mutex<Condition>

    private enum Message: Sendable {
        case answer(startedAt: Double, keys: Zone.Unlocked?, error: KeyringError?)
        case probe(Reply)
        case revoke(cause: String, Reply)
        case restore(Reply)
        case stop(Reply)
    }
    private typealias Reply = Mailbox<Outcome>

    /// `onLease` hears when the zone's keys have to go at the latest, on `BootClock`; `nil` when there are none. `describe` words an error
    /// for people.
    package init(
        _ zone: Zone, of mount: VolumeMount, timing: LeaseTiming, kernel: any KernelCaching, mountPoint: String,
        device: dev_t?, describe: @escaping @Sendable (KeyringError) -> String,
        onLease: @escaping @Sendable (ZoneID, Double?) -> Void, onEvent: @escaping @Sendable (Event) -> Void
    ) {
        self.zone = zone
        self.mount = mount
        self.timing = timing
        self.describe = describe
        self.onEvent = onEvent
        self.onLease = onLease
        revocation = Revocation(mount: mount, kernel: kernel, mountPoint: mountPoint, device: device)
        let cause = mount.lockedZones[zone.id].map { describe($0) }
        shown = Mutex(
            Condition(
                state: zone.isOpen ? "open" : "revoked", since: Date.now, cause: cause, isHeld: false,
                leaseSeconds: nil, lastRevocation: nil))
    }

    package var condition: Condition {
        shown.withLock { shown in
            var condition = shown
            if let end = condition.leaseSeconds { condition.leaseSeconds = max(0, end - BootClock.now) }
            return condition
        }
    }

    package func start() {
        let isWatched = PlainThread.detach { [self] in
            Urgency.raiseThread()
            Run(self).loop()
        }
        guard !isWatched else { return }
        // Keys that nobody would take away are not used.
        zone.close(.noKey)
        shown.withLock { shown in
            shown.state = "revoked"
            shown.cause = "no thread can be had to watch over the zone's lease"
        }
    }

    /// Asks the owner now, and acts on the answer before this returns.
    package func probeNow(timeoutSeconds: Double = 60) -> Outcome? { ask(timeoutSeconds) { .probe($0) } }

    /// Takes the keys away now, and keeps them away until `restore`.
    package func revoke(cause: String, timeoutSeconds: Double = 60) -> Outcome? {
        ask(timeoutSeconds) { .revoke(cause: cause, $0) }
    }

    /// Asks the owner for the keys again.
    package func restore(timeoutSeconds: Double = 60) -> Outcome? { ask(timeoutSeconds) { .restore($0) } }

    /// Ends the watch; what is being carried out is finished first, for at most `timeoutSeconds`.
    package func stop(timeoutSeconds: Double = 30) { _ = ask(timeoutSeconds) { .stop($0) } }

    private func ask(_ seconds: Double, _ message: (Reply) -> Message) -> Outcome? {
        let reply = Reply()
        mailbox.post(message(reply))
        return reply.wait(seconds: seconds)
    }

    /// The deciding thread's own state.
    private final class Run {
        private let keeper: ZoneKeeper
        private var lease: Lease
        private var isHeld = false
        private var isAsking = false
        private var isOut = false
        /// A probe that starts after these asked will answer them.
        private var waiting: [Reply] = []
        private var answerable: [Reply] = []
        private var nextProbe: Double
        private var closedSince: Double

        init(_ keeper: ZoneKeeper) {
            self.keeper = keeper
            let now = BootClock.now
            lease = Lease(keeper.timing, unlockedAt: now)
            nextProbe = now
            closedSince = now
            showLease()
        }

        func loop() {
            while true {
                let now = BootClock.now
                var wake = min(nextProbe, now + 1)
                if keeper.zone.isOpen { wake = min(wake, lease.end) }
                if let message = keeper.mailbox.wait(seconds: wake - now) {
                    if case .stop(let reply) = message { return reply.post(.condition(keeper.condition)) }
                    handle(message)
                }
                if keeper.zone.isOpen, lease.check(now: BootClock.now) == .expire {
                    revoke(
                        .noKey, "the lease ended: the CMK's owner has not answered for \(keeper.timing.leaseSeconds) s")
                }
                if !isAsking, BootClock.now >= nextProbe || !waiting.isEmpty { startProbe() }
            }
        }

        private func handle(_ message: Message) {
            switch message {
            case .answer(let start, let keys, let error):
                isAsking = false
                if keeper.zone.isOpen {
                    judge(start, error)
                } else if !reopen(start, keys, error) {
                    // Who waits for an answer waits for the next one.
                    waiting = answerable + waiting
                    answerable = []
                    nextProbe = BootClock.now
                    return
                }
                let outcome = error.map { Outcome.failure($0) } ?? .condition(keeper.condition)
                for reply in answerable { reply.post(outcome) }
                answerable = []
            case .probe(let reply): waiting.append(reply)
            case .revoke(let cause, let reply):
                isHeld = true
                if keeper.zone.isOpen { revoke(.keyRevoked, cause) }
                keeper.shown.withLock { $0.isHeld = true }
                reply.post(.condition(keeper.condition))
            case .restore(let reply):
                isHeld = false
                keeper.shown.withLock { $0.isHeld = false }
                waiting.append(reply)
            case .stop: break
            }
        }

        private func startProbe() {
            let now = BootClock.now
            nextProbe = now + keeper.timing.probeSeconds * Double.random(in: 0.8...1)
            // Held by hand, the owner need not be asked.
            guard !isHeld || !waiting.isEmpty else { return }
            let (mount, zone, mailbox) = (keeper.mount, keeper.zone.id, keeper.mailbox)
            let needsKeys = !keeper.zone.isOpen
            isAsking = PlainThread.detach {
                do throws(KeyringError) {
                    var keys: Zone.Unlocked?
                    if needsKeys { keys = try mount.unlock(zone) } else { try mount.probe(zone) }
                    mailbox.post(.answer(startedAt: now, keys: keys, error: nil))
                } catch { mailbox.post(.answer(startedAt: now, keys: nil, error: error)) }
            }
            // Otherwise it is tried again, and the lease runs on.
            guard isAsking else { return }
            answerable = waiting
            waiting = []
        }

        private func judge(_ start: Double, _ error: KeyringError?) {
            switch lease.answered(startedAt: start, now: BootClock.now, error: error) {
            case .goOn:
                // An answer may also shorten it: whoever watches this daemon goes by the same end.
                showLease()
                if error == nil { keeper.onEvent(.renewed(keeper.zone.id)) }
                if let error, !isOut {
                    isOut = true
                    keeper.shown.withLock { $0.cause = keeper.describe(error) }
                    keeper.onEvent(.outage(keeper.zone.id, error))
                } else if error == nil, isOut {
                    isOut = false
                    keeper.shown.withLock { $0.cause = nil }
                    keeper.onEvent(.outageOver(keeper.zone.id))
                }
            case .revoke: revoke(.keyRevoked, error.map { keeper.describe($0) } ?? "refused")
            case .expire: revoke(.noKey, error.map { keeper.describe($0) } ?? "the answer came after the lease's end")
            }
        }

        /// False where the keyring was changed while its keys were unwrapped: its owner has to be asked again.
        private func reopen(_ start: Double, _ keys: Zone.Unlocked?, _ error: KeyringError?) -> Bool {
            guard let keys, !isHeld else {
                if let error { keeper.shown.withLock { $0.cause = keeper.describe(error) } }
                return true
            }
            keeper.revocation.purgeAgain(keeper.zone.id)
            lease = Lease(keeper.timing, unlockedAt: start)
            guard lease.check(now: BootClock.now) == .goOn else { return true }
            guard keeper.zone.open(keys) else { return false }
            isOut = false
            keeper.shown.withLock { shown in
                shown.state = "open"
                shown.since = Date.now
                shown.cause = nil
            }
            showLease()
            keeper.onEvent(.restored(keeper.zone.id, afterSeconds: BootClock.now - closedSince))
            return true
        }

        private func revoke(_ reason: Errno, _ cause: String) {
            // The guardian would take a daemon that is still at it for one that hangs.
            keeper.onLease(keeper.zone.id, BootClock.now + Revocation.longestSeconds)
            let report = Urgency.beforeOtherSessions {
                keeper.revocation.run(keeper.zone, reason: reason, cause: cause)
            }
            closedSince = BootClock.now
            isOut = false
            keeper.shown.withLock { shown in
                shown.state = "revoked"
                shown.since = report.at
                shown.cause = cause
                shown.leaseSeconds = nil
                shown.lastRevocation = report
            }
            keeper.onLease(keeper.zone.id, nil)
            keeper.onEvent(.revoked(report))
        }

        private func showLease() {
            guard keeper.zone.isOpen else { return keeper.onLease(keeper.zone.id, nil) }
            let end = lease.end
            keeper.shown.withLock { $0.leaseSeconds = end }
            keeper.onLease(keeper.zone.id, end)
        }
    }
}
