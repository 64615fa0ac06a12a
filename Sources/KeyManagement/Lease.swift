/// How long keys may be used since their owner last said yes, and how often it is asked.
package struct LeaseTiming: Sendable, Equatable {
    /// Between two probes, in seconds; each is shortened at random by up to a fifth, so that many mounts do not ask at once.
    package var probeSeconds: Double
    /// After the last successful unwrap, in seconds.
    package var leaseSeconds: Double
    /// After the lease, in seconds, while the owner cannot be reached: the volume's policy. 0: fail closed at once.
    package var graceSeconds: Double

    package init(probeSeconds: Double, leaseSeconds: Double, graceSeconds: Double = 0) {
        self.probeSeconds = probeSeconds
        self.leaseSeconds = leaseSeconds
        self.graceSeconds = graceSeconds
    }

    /// For a token in this machine.
    package static let local = LeaseTiming(probeSeconds: 1, leaseSeconds: 5)
    /// For an owner across a network.
    package static let network = LeaseTiming(probeSeconds: 10, leaseSeconds: 30)
}

/// What a zone's keys owe to their owner's answers. Pure: the caller brings the time, in seconds of a clock that never goes back.
package struct Lease: Sendable {
    package enum Decision: Sendable, Equatable {
        /// The keys may be used until the lease ends.
        case goOn
        /// The owner said no.
        case revoke
        /// The owner has not answered for too long.
        case expire
    }

    package let timing: LeaseTiming
    /// Start of the last call that succeeded: the owner may have changed its mind right after it answered.
    private var lastYes: Double
    /// The last answer, if there was one, was a yes, or that the owner is out of reach. What it answers otherwise, grace does not bridge.
    private var hasGrace = true

    package init(_ timing: LeaseTiming, unlockedAt now: Double) {
        self.timing = timing
        lastYes = now
    }

    /// When the keys have to go, if nothing is heard until then.
    package var end: Double { lastYes + timing.leaseSeconds + (hasGrace ? timing.graceSeconds : 0) }

    /// A probe that began at `start` came back.
    package mutating func answered(startedAt start: Double, now: Double, error: KeyringError?) -> Decision {
        hasGrace = error.map { $0.gravity == .outOfReach } ?? true
        guard let error else {
            lastYes = max(lastYes, start)
            return now < end ? .goOn : .expire
        }
        if error.isRefusal { return .revoke }
        return now < end ? .goOn : .expire
    }

    /// Time has passed.
    package func check(now: Double) -> Decision { now < end ? .goOn : .expire }
}
