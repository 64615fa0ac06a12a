import KeyManagement
import TestSupport
import Testing
import VolumeFormat

@Suite struct KeyringUnlockingTests {
    @Test(arguments: ZoneKeyring.Policy.allCases, [1, 2, 3, 16])
    func createdKeyringsOpen(policy: ZoneKeyring.Policy, count: Int) throws {
        let sample = try SampleKeyring(policy, cmkCount: count)
        let stored = try ZoneKeyring(parsing: sample.keyring.encoded)
        #expect(stored == sample.keyring)
        let keys = try sample.unlocking.unlock(stored)
        let (slot, dek) = try sample.keys.makeSlot(version: .first, now: 5)
        let unwrapped = try keys.unwrap(slot).array()
        #expect(unwrapped == dek.key.array())
        #expect(slot.created == 5 && slot.kekVersion == .first && slot.state == .current)
        #expect(keys.currentMetadata?.version == .first)
    }

    /// any-of: one CMK that answers is enough, whichever it is, and whatever the others say.
    @Test(arguments: RootError.Code.allCases)
    func anyOfNeedsOne(refusal: RootError.Code) throws {
        let sample = try SampleKeyring(.anyOf, cmkCount: 3)
        for left in 0..<3 {
            for (index, cmk) in sample.cmks.enumerated() { cmk.refuse(index == left ? nil : refusal) }
            #expect(sample.unlocking.failure(sample.keyring) == nil)
        }
        for cmk in sample.cmks { cmk.refuse(refusal) }
        #expect(sample.unlocking.failure(sample.keyring) == .root(RootError(refusal, ""), uri: "test:0"))
    }

    @Test func anyOfWithCMKsThatAreNotThere() throws {
        let sample = try SampleKeyring(.anyOf, cmkCount: 2)
        let onlySecond = KeyringUnlocking(resolve: resolver([sample.cmks[1]]))
        #expect(onlySecond.failure(sample.keyring) == nil)
        let none = KeyringUnlocking(resolve: resolver([]))
        #expect(none.failure(sample.keyring) == .root(RootError(.keyNotFound, ""), uri: "test:0"))
    }

    /// all-of: each one that is missing or refuses is one too many.
    @Test(arguments: [1, 2, 3, 5])
    func allOfNeedsEach(count: Int) throws {
        let sample = try SampleKeyring(.allOf, cmkCount: count)
        for missing in 0..<count {
            let others = sample.cmks.enumerated().filter { $0.offset != missing }.map(\.element)
            let unlocking = KeyringUnlocking(resolve: resolver(others))
            #expect(unlocking.failure(sample.keyring) == .root(RootError(.keyNotFound, ""), uri: "test:\(missing)"))
            sample.cmks[missing].refuse(.disabled)
            #expect(
                sample.unlocking.failure(sample.keyring) == .root(RootError(.disabled, ""), uri: "test:\(missing)"))
            sample.cmks[missing].refuse(nil)
        }
        #expect(sample.unlocking.failure(sample.keyring) == nil)
    }

    /// all-of: every owner is asked, and a no is never hidden by what the others say, nor a refused PIN by an outage.
    @Test(
        arguments: [
            ([.unreachable, .disabled], 1), ([.disabled, .unreachable], 0),
            ([.pinIncorrect, .timedOut, .destroyed], 2),
            ([.unreachable, .pinIncorrect], 1), ([.timedOut, .unreachable], 0), ([.unknownRoot, .keyNotFound], 1),
            ([.unreachable, .unknownRoot], 1), ([nil, .throttled, .denied], 2), ([.denied, .disabled], 0),
        ] as [([RootError.Code?], Int)])
    func allOfTellsTheGravest(codes: [RootError.Code?], gravest: Int) throws {
        let sample = try SampleKeyring(.allOf, cmkCount: codes.count)
        for (cmk, code) in zip(sample.cmks, codes) { cmk.refuse(code) }
        let code = try #require(codes[gravest])
        #expect(sample.unlocking.failure(sample.keyring) == .root(RootError(code, ""), uri: "test:\(gravest)"))
        #expect(sample.cmks.allSatisfy { $0.unwraps == 1 })
    }

    /// any-of: it is a no only where all say no. One that this host does not know is not asked, and does not count.
    @Test(
        arguments: [
            ([.disabled, .unreachable], 1), ([.unreachable, .disabled], 0), ([.destroyed, .pinIncorrect], 1),
            ([.pinIncorrect, .unreachable], 1), ([.disabled, .destroyed], 0), ([.disabled, .unknownRoot], 0),
            ([.unknownRoot, .disabled], 1), ([.unknownRoot, .unreachable, .disabled], 1),
            ([.unknownRoot, .unknownRoot], 0),
        ] as [([RootError.Code], Int)])
    func anyOfTellsTheMildest(codes: [RootError.Code], mildest: Int) throws {
        let sample = try SampleKeyring(.anyOf, cmkCount: codes.count)
        for (cmk, code) in zip(sample.cmks, codes) { cmk.refuse(code) }
        let wanted = KeyringError.root(RootError(codes[mildest], ""), uri: "test:\(mildest)")
        #expect(sample.unlocking.failure(sample.keyring) == wanted)
    }

    /// Another CMK of the same name is not the same CMK.
    @Test(arguments: ZoneKeyring.Policy.allCases)
    func anImpostorIsNotAuthentic(policy: ZoneKeyring.Policy) throws {
        let sample = try SampleKeyring(policy, cmkCount: 1)
        let unlocking = KeyringUnlocking(resolve: resolver([try InMemoryCMK("test:0")]))
        #expect(unlocking.failure(sample.keyring) == .root(RootError(.notAuthentic, ""), uri: "test:0"))
    }

    @Test(arguments: ZoneKeyring.Policy.allCases)
    func everyByteCounts(policy: ZoneKeyring.Policy) throws {
        var sample = try SampleKeyring(policy, cmkCount: 2)
        if policy == .anyOf { try sample.addKEK() }
        let encoded = sample.keyring.encoded
        var refused = 0
        for index in encoded.indices {
            for mask: UInt8 in [1, 0x80, 0xFF] {
                var changed = encoded
                changed[index] ^= mask
                guard let keyring = try? ZoneKeyring(parsing: changed) else {
                    refused += 1
                    continue
                }
                #expect(sample.unlocking.failure(keyring) != nil, "byte \(index) of \(encoded.count)")
            }
        }
        #expect(refused > 0)
        #expect(sample.unlocking.failure(try ZoneKeyring(parsing: encoded)) == nil)
    }

    /// Every usable KEK version authenticates the whole: none may be missing, wrong, or too many.
    @Test func macsUnderEachVersion() throws {
        var sample = try SampleKeyring(.anyOf, cmkCount: 1)
        try sample.addKEK()
        try sample.addKEK()
        #expect(sample.keyring.macs.count == 3)
        #expect(sample.unlocking.failure(sample.keyring) == nil)
        for index in 0..<3 {
            var missing = sample.keyring
            missing.macs.remove(at: index)
            #expect(sample.unlocking.failure(missing) == .notAuthentic)
            var wrong = sample.keyring
            wrong.macs[index].code[31] ^= 1
            #expect(sample.unlocking.failure(wrong) == .notAuthentic)
            var twice = sample.keyring
            twice.macs.append(twice.macs[index])
            #expect(sample.unlocking.failure(twice) == .notAuthentic)
            var renamed = sample.keyring
            renamed.macs[index].kekVersion = KeyVersion(rawValue: 9)
            #expect(sample.unlocking.failure(renamed) == .notAuthentic)
        }
    }

    /// Nobody who lacks an older KEK can slip a new one in, nor take an older one out.
    @Test func aKEKCannotBeAddedOrTaken() throws {
        var sample = try SampleKeyring(.anyOf, cmkCount: 1)
        let before = sample.keyring
        try sample.addKEK()
        var forged = sample.keyring
        forged.macs.removeAll { $0.kekVersion == .first }
        forged.macs.append(contentsOf: before.macs)
        #expect(sample.unlocking.failure(forged) == .notAuthentic)
        var taken = sample.keyring
        taken.keks.removeFirst()
        taken.macs.removeFirst()
        #expect(sample.unlocking.failure(taken) == .notAuthentic)
    }

    @Test func otherVolumeZoneOrVersion() throws {
        let sample = try SampleKeyring(.anyOf, cmkCount: 1)
        let wrong = KeyringError.root(RootError(.notAuthentic, ""), uri: "test:0")
        var volume = sample.keyring
        volume.volume.low ^= 1
        #expect(sample.unlocking.failure(volume) == wrong)
        var zone = sample.keyring
        zone.zone = ZoneID(rawValue: 1)
        #expect(sample.unlocking.failure(zone) == wrong)
        var version = sample.keyring
        version.keks[0].version = KeyVersion(rawValue: 2)
        #expect(sample.unlocking.failure(version) == wrong)
        var policy = sample.keyring
        policy.policy = .allOf
        #expect(sample.unlocking.failure(policy) == .notAuthentic)
    }

    /// A destroyed or suspended version is not asked for; without an active one there is nothing to wrap with.
    @Test(arguments: KeyState.allCases)
    func states(state: KeyState) throws {
        var sample = try SampleKeyring(.anyOf, cmkCount: 1)
        try sample.addKEK()
        sample.keyring.keks[1].history.append(StateChange(state, at: 3000))
        try sample.reseal()
        let keys = try sample.unlocking.unlock(sample.keyring)
        #expect((keys.kek(KeyVersion(rawValue: 2)) != nil) == state.mayDecrypt)
        #expect(keys.activeKEK.version == (state == .active ? KeyVersion(rawValue: 2) : .first))
        sample.keyring.keks[0].history.append(StateChange(.deactivated, at: 3000))
        try sample.reseal()
        #expect(sample.unlocking.failure(sample.keyring) == (state == .active ? nil : .noUsableKEK))
    }

    @Test func everyUnlockAsksTheCMK() throws {
        let sample = try SampleKeyring(.allOf, cmkCount: 2)
        for round in 1...3 {
            _ = try sample.unlocking.unlock(sample.keyring)
            #expect(sample.cmks.map(\.unwraps) == [round, round])
        }
    }
}
