import ControlPlane
import TestSupport
import Testing

/// What the host remembers of a log, against which a process without the KEK looks at it, too.
@Suite struct AuditMemoryTests {
    private func told(_ sample: AuditSample) throws -> [String] {
        try sample.records().filter { $0.kind == "log-damaged" }.compactMap { $0.fields["what"] }
    }

    /// An older log with its own seals is put back, and a command writes behind it.
    @Test func anOlderLogUnderACommand() throws {
        let sample = try AuditSample.filled()
        let older = try sample.lines
        let log = try sample.open()
        for _ in 0..<8 { log.append(.mounted) }
        log.close()
        try sample.write(older)
        try sample.leave(.cmkDisabled)
        #expect(try told(sample) == ["the log lacks the record that this host remembers"])
        #expect(try sample.records().map(\.kind).suffix(3) == ["log-damaged", "cmk-disabled", "checkpoint"])
        let report = try sample.verify(sealed: false, keySource: .host)
        #expect(report.findings.map(\.what) == [.told], "\(report.findings)")
        // Once told, it is not told again.
        try sample.leave(.cmkEnabled)
        #expect(try told(sample).count == 1)
    }

    /// Nothing is left of the log, and a command begins another one.
    @Test func anEmptyLogUnderACommand() throws {
        let sample = try AuditSample.filled()
        try sample.write([])
        try sample.leave(.cmkDisabled)
        #expect(
            try told(sample) == [
                "the whole log was removed", "the log lacks the record that this host remembers",
            ])
        #expect(try sample.verify(sealed: false, keySource: .host).findings.map(\.what) == [.told, .told])
    }

    /// Records that stand behind what the host remembers are a crash's or a stranger's: they are named before they are signed.
    @Test func recordsBehindTheMemoryUnderACommand() throws {
        let sample = try AuditSample.filled()
        do { try sample.open().append(.mounted) }
        try sample.leave(.cmkDisabled)
        let adopted = try sample.records().filter { $0.kind == "log-adopted" }.map(\.fields)
        #expect(adopted == [["from": "14", "to": "14"]])
        #expect(try sample.records().map(\.kind).suffix(3) == ["log-adopted", "cmk-disabled", "checkpoint"])
        try sample.leave(.cmkEnabled)
        #expect(try sample.records().count { $0.kind == "log-adopted" } == 1)
        #expect(try sample.verify(sealed: false, keySource: .host).findings.isEmpty)
    }

    /// A log longer than a mount reads, where host and seal do not remember the same record: what comes after both is short.
    @Test func aLongLog() throws {
        let sample = try AuditSample.filled(40)
        try sample.leave(.cmkDisabled)
        for _ in 0..<2 {
            let log = try sample.open(signer: sample.signer, remembering: true, maximumScan: 2048)
            log.append(.mounted)
            log.close()
            try sample.leave(.cmkEnabled)
        }
        #expect(try told(sample).isEmpty)
        #expect(try sample.records().count { $0.kind == "log-adopted" } == 2)
        #expect(try sample.verify().findings.isEmpty)
    }

    /// The host may be behind the seal, too: another one had the volume meanwhile.
    @Test func aLongLogThatAnotherHostWrote() throws {
        let sample = try AuditSample.filled(40)
        let before = sample.remembered
        let other = try sample.open()
        other.append(.mounted)
        other.close()
        sample.remember(before)
        let log = try sample.open(signer: sample.signer, remembering: true, maximumScan: 2048)
        log.close()
        #expect(try told(sample).isEmpty)
    }

    /// A backup was put back, longer than a mount reads: the chain goes on where the log ends, which the seal tells.
    @Test func aLongLogThatLacksWhatIsRemembered() throws {
        let sample = try AuditSample.filled(40)
        var later = try #require(sample.remembered)
        (later.sequence, later.hash, later.end) = (later.sequence + 9, later.hash.reversed(), later.end + 4000)
        sample.remember(later)
        let log = try sample.open(signer: sample.signer, remembering: true, maximumScan: 2048)
        log.append(.mounted)
        log.close()
        #expect(try told(sample) == ["the log lacks the record that this host remembers"])
        #expect(try sample.verify(sealed: false, keySource: .host).findings.map(\.what) == [.told])
    }
}
