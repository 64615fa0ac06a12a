import Testing
import VolumeFormat

/// Histories of key states: what they keep, and what is taken back.
@Suite struct StateHistoryTests {
    private func cmk(_ states: [KeyState]) -> ZoneKeyring.CMK {
        ZoneKeyring.CMK(uri: "test:", history: states.map { StateChange($0, at: 1) })
    }

    /// A CMK that was rotated away stays so, however often it is switched off and on.
    @Test(arguments: [[KeyState.active, .deactivated], [.active, .suspended, .active, .deactivated]])
    func aDeactivationIsNotForgotten(states: [KeyState]) throws {
        var cmk = cmk(states)
        for round in 0..<100 {
            cmk.history.enter(.suspended, at: UInt64(round))
            cmk.history.enter(.active, at: UInt64(round))
            try #require(!cmk.isInUse && cmk.history.count <= StateChange.maximumCount, "round \(round)")
        }
        #expect(cmk.history.first == StateChange(.active, at: 1) && cmk.state == .active)
        #expect(cmk.history.count == StateChange.maximumCount)
    }

    @Test func whatFollowsDestructionIsNoChange() {
        var cmk = cmk([.active])
        let isDestroyed = cmk.history.enter(.destroyed, at: 2)
        #expect(isDestroyed)
        for state in KeyState.allCases {
            let changed = cmk.history.enter(state, at: 3)
            #expect(!changed)
        }
        #expect(cmk.history.map(\.state) == [.active, .destroyed])
    }

    /// The owner shows the key: what was noted before the act, and did not come about, goes.
    @Test func aDestructionThatDidNotHappen() {
        var history = cmk([.active, .destroyed]).history
        let changed = history.correct(to: .active, at: 5)
        #expect(changed && history == [StateChange(.active, at: 1)])
        history = cmk([.active, .destroyed]).history
        history.correct(to: .suspended, at: 5)
        #expect(history.map(\.state) == [.active, .suspended])
        history = cmk([.destroyed]).history
        history.correct(to: .active, at: 5)
        #expect(history == [StateChange(.active, at: 5)])
        let again = history.correct(to: .active, at: 6)
        #expect(!again)
        history.correct(to: .destroyed, at: 7)
        let twice = history.correct(to: .destroyed, at: 8)
        #expect(!twice && history.map(\.state) == [.active, .destroyed])
    }
}
