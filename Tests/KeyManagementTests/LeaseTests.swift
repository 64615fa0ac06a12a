import KeyManagement
import Testing

@Suite struct LeaseTests {
    private static let timing = LeaseTiming(probeSeconds: 1, leaseSeconds: 5)
    private static func error(_ code: RootError.Code) -> KeyringError {
        .root(RootError(code, "C_Decrypt"), uri: "test:")
    }

    /// A lease counts from the start of the call that succeeded.
    @Test func successExtends() {
        var lease = Lease(Self.timing, unlockedAt: 100)
        #expect(lease.end == 105)
        #expect(lease.answered(startedAt: 101, now: 104, error: nil) == .goOn)
        #expect(lease.end == 106)
        #expect(lease.check(now: 105.99) == .goOn)
        #expect(lease.check(now: 106) == .expire)
    }

    /// An answer that took longer than the lease comes too late, whatever it says.
    @Test func lateSuccessExpires() {
        var lease = Lease(Self.timing, unlockedAt: 100)
        #expect(lease.answered(startedAt: 101, now: 106.5, error: nil) == .expire)
    }

    /// An old answer does not take back what a newer one gave.
    @Test func answersOutOfOrder() {
        var lease = Lease(Self.timing, unlockedAt: 100)
        _ = lease.answered(startedAt: 103, now: 103.1, error: nil)
        #expect(lease.answered(startedAt: 101, now: 103.2, error: nil) == .goOn)
        #expect(lease.end == 108)
    }

    @Test(arguments: RootError.Code.allCases)
    func everyAnswer(code: RootError.Code) {
        var lease = Lease(Self.timing, unlockedAt: 100)
        let refusals: Set<RootError.Code> = [
            .disabled, .denied, .pendingDeletion, .destroyed, .versionDestroyed, .keyNotFound,
        ]
        let early = lease.answered(startedAt: 101, now: 101.1, error: Self.error(code))
        #expect(early == (refusals.contains(code) ? .revoke : .goOn))
        #expect(lease.end == 105, "an error never extends a lease")
        let late = lease.answered(startedAt: 104, now: 105, error: Self.error(code))
        #expect(late == (refusals.contains(code) ? .revoke : .expire))
    }

    /// Bytes that do not authenticate, or a failing library, are no owner's word: the lease runs out.
    @Test(arguments: [KeyringError.notAuthentic, .noUsableKEK])
    func whatIsNoAnswer(error: KeyringError) {
        var lease = Lease(Self.timing, unlockedAt: 100)
        #expect(lease.answered(startedAt: 101, now: 101.1, error: error) == .goOn)
        #expect(lease.answered(startedAt: 104, now: 105, error: error) == .expire)
    }

    @Test func graceIsBounded() {
        var lease = Lease(LeaseTiming(probeSeconds: 1, leaseSeconds: 5, graceSeconds: 60), unlockedAt: 0)
        #expect(lease.answered(startedAt: 60, now: 64.9, error: Self.error(.unreachable)) == .goOn)
        #expect(lease.check(now: 65) == .expire)
        // Grace is for owners that cannot be reached; a no is a no.
        #expect(lease.answered(startedAt: 10, now: 10.1, error: Self.error(.disabled)) == .revoke)
    }

    /// Grace is for an owner that is out of reach, or does not answer at all. Whatever else it answers ends with the lease.
    @Test(arguments: RootError.Code.allCases)
    func graceIsForOutages(code: RootError.Code) {
        let outages: Set<RootError.Code> = [.unreachable, .timedOut, .throttled, .tokenNotFound, .moduleUnavailable]
        var lease = Lease(LeaseTiming(probeSeconds: 1, leaseSeconds: 5, graceSeconds: 60), unlockedAt: 0)
        #expect(lease.end == 65, "nothing was heard yet")
        guard lease.answered(startedAt: 1, now: 1.1, error: Self.error(code)) == .goOn else { return }
        let isBridged = outages.contains(code)
        #expect(lease.end == (isBridged ? 65 : 5))
        #expect(lease.check(now: 5) == (isBridged ? .goOn : .expire))
        #expect(lease.answered(startedAt: 2, now: 2.1, error: nil) == .goOn)
        #expect(lease.end == 67)
    }

    @Test(arguments: [KeyringError.notAuthentic, .noUsableKEK])
    func graceIsNotForDamage(error: KeyringError) {
        var lease = Lease(LeaseTiming(probeSeconds: 1, leaseSeconds: 5, graceSeconds: 60), unlockedAt: 0)
        #expect(lease.answered(startedAt: 1, now: 1.1, error: error) == .goOn)
        #expect(lease.answered(startedAt: 4, now: 5, error: error) == .expire)
        // The owner is away after that: the last answer counts.
        #expect(lease.answered(startedAt: 4, now: 4.5, error: Self.error(.unreachable)) == .goOn)
        #expect(lease.end == 65)
    }
}
