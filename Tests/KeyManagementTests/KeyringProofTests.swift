import KeyManagement
import TestSupport
import Testing
import VolumeFormat

/// What proves that a destroyed KEK version is gone, and what does not.
@Suite struct KeyringProofTests {
    typealias Case = KeyringEditingTests.Case

    /// A keyring whose first version is destroyed in it and, unless told otherwise, in the tokens; its wraps are still to be tried.
    private func destroyed(_ policy: ZoneKeyring.Policy, inTokens: Bool = true) throws -> Case {
        var test = try Case(policy, count: 2)
        try test.addKEK()
        var changed = test.keyring
        let new = try test.editing.destroyKEK(.first, in: &changed, test.keys, untilProven: true, now: 20)
        try test.commit(changed, new)
        if inTokens { #expect(try test.editing.destroyVersionKeys(.first, of: { test.keyring }) == 2) }
        return test
    }

    @Test(arguments: ZoneKeyring.Policy.allCases) func everyWrapIsTried(policy: ZoneKeyring.Policy) throws {
        var test = try destroyed(policy)
        #expect(test.keyring.keks.map(\.isUnproven) == [true, false])
        #expect(test.editing.isRefused(.first, with: test.keyring))
        #expect(!test.editing.isRefused(KeyVersion(rawValue: 2), with: test.keyring))
        var changed = test.keyring
        test.editing.forgetProven([.first], in: &changed)
        try test.commit(changed, test.keys)
        #expect(test.keyring.keks.map(\.wraps.count) == [0, 2])
        #expect(!test.editing.isRefused(.first, with: test.keyring))
    }

    /// Under any-of the first CMK's refusal says nothing about the second.
    @Test(arguments: [RootError.Code.timedOut, .disabled, .keyNotFound]) func oneThatDoesNotAnswer(
        code: RootError.Code
    ) throws {
        let test = try destroyed(.anyOf)
        test.cmks[1].refuse(code)
        #expect(!test.editing.isRefused(.first, with: test.keyring))
        // Half of what all-of takes is gone.
        let both = try destroyed(.allOf)
        both.cmks[1].refuse(code)
        #expect(both.editing.isRefused(.first, with: both.keyring))
    }

    /// A CMK that an operator has destroyed opens nothing, whatever became of the version key beside it.
    @Test func aCMKThatWasDestroyed() throws {
        var test = try destroyed(.anyOf, inTokens: false)
        test.cmks[1].refuse(.destroyed)
        #expect(!test.editing.isRefused(.first, with: test.keyring))
        test.keyring.cmks[1].history.enter(.destroyed, at: 30)
        #expect(try test.editing.destroyVersionKeys(.first, of: { test.keyring }) == 1)
        #expect(test.editing.isRefused(.first, with: test.keyring))
    }

    /// Former CMKs give way in a list that is full, but none whose wraps are still to be tried; the wraps keep naming theirs.
    @Test func aFullListOfCMKs() throws {
        var test = try destroyed(.anyOf, inTokens: false)
        for round in 0..<20 {
            var changed = test.keyring
            try test.editing.replaceCMKs(of: &changed, with: [test.cmks[2 + round % 6]], now: UInt64(round + 40))
            try test.commit(changed, test.keys)
        }
        #expect(test.keyring.cmks.count == ZoneKeyring.maximumCMKs)
        let named = test.keyring.keks[0].wraps.map { test.keyring.cmks[Int($0.cmk)].uri }
        #expect(named == ["test:0", "test:1"])
        _ = try test.editing.destroyVersionKeys(.first, of: { test.keyring })
        #expect(test.editing.isRefused(.first, with: test.keyring))
    }

    /// A former CMK beside which version keys are left to destroy stays in a full list: nobody would ask for them otherwise.
    @Test func aFormerCMKThatIsStillNeeded() throws {
        var test = try Case()
        for round in 1..<ZoneKeyring.maximumCMKs {
            var changed = test.keyring
            try test.editing.replaceCMKs(of: &changed, with: [test.cmks[round % 8]], now: UInt64(round + 40))
            changed.pending = [PendingWork(.purge, version: .first, started: 1)]
            try test.commit(changed, test.keys)
        }
        #expect(test.keyring.cmks.count == ZoneKeyring.maximumCMKs)
        var changed = test.keyring
        #expect(throws: KeyringError.full) {
            try test.editing.replaceCMKs(of: &changed, with: [test.cmks[7]], now: 90)
        }
        changed = test.keyring
        changed.cmks[3].history.enter(.destroyed, at: 80)
        try test.editing.replaceCMKs(of: &changed, with: [test.cmks[7]], now: 90)
        try test.commit(changed, test.keys)
        changed.pending = []
        try test.editing.replaceCMKs(of: &changed, with: [test.cmks[6]], now: 91)
    }

    /// The CMKs that give way were former ones before: those that are replaced just now hold the version keys of this very keyring.
    @Test func whatIsReplacedDoesNotGiveWay() throws {
        var test = try Case(.anyOf, count: 8)
        var changed = test.keyring
        try test.editing.replaceCMKs(of: &changed, with: test.cmks, now: 40)
        try test.commit(changed, test.keys)
        #expect(throws: KeyringError.full) {
            try test.editing.replaceCMKs(of: &changed, with: test.cmks + [test.cmks[0]], now: 41)
        }
        changed = test.keyring
        try test.editing.replaceCMKs(of: &changed, with: test.cmks, now: 41)
        #expect(changed.cmks.count == ZoneKeyring.maximumCMKs)
    }
}
