import ControlPlane
import TestSupport
import Testing

/// Each way to tamper with a log is found, and the record is named.
@Suite struct AuditTamperTests {
    private func expect(
        _ report: AuditReport, _ what: AuditReport.What, _ sequence: UInt64?, last: UInt64? = nil,
        _ comment: String = ""
    ) {
        #expect(
            report.findings.contains { $0.what == what && $0.sequence == sequence && $0.last == last },
            "\(comment) \(report.findings)")
    }

    @Test func aWholeLogIsFine() throws {
        let report = try AuditSample.filled().verify()
        #expect(report.findings.isEmpty && report.notes.isEmpty, "\(report)")
        // log-started, six records, checkpoint, four records, checkpoint.
        #expect(report.records == 13 && report.checkpoints == 2 && report.signedCheckpoints == 2)
        #expect(report.signedThrough == 12 && report.sealedThrough == 13 && report.rememberedThrough == 13)
    }

    @Test func aChangedRecord() throws {
        let sample = try AuditSample.filled()
        let whole = try sample.lines
        for index in whole.indices {
            var lines = whole
            let last = index == whole.count - 1
            lines[index] = lines[index].replacing(
                last ? "\"through\":\"12\"" : "\"kind\":\"", with: last ? "\"through\":\"11\"" : "\"kind\":\"x")
            try sample.write(lines)
            expect(try sample.verify(), .changed, UInt64(index + 1))
        }
        try sample.write(whole)
        #expect(try sample.verify().findings.isEmpty)
    }

    /// Every byte counts, whatever it becomes.
    @Test func aChangedByte() throws {
        let sample = try AuditSample.filled(3)
        let whole = Array(try readText(sample.logPath).utf8)
        for offset in stride(from: 0, to: whole.count, by: 31) {
            var bytes = whole
            bytes[offset] ^= 1 << (offset % 7)
            guard let text = String(validating: bytes, as: UTF8.self) else { continue }
            try writeText(text, to: sample.logPath)
            #expect(try !sample.verify().findings.isEmpty, "byte \(offset)")
            #expect(try !sample.verify(sealed: false, remembering: false).findings.isEmpty || offset == whole.count - 1)
        }
    }

    @Test func missingRecords() throws {
        let sample = try AuditSample.filled()
        let whole = try sample.lines
        for range in [2..<3, 4..<7, 0..<1, 0..<9] {
            var lines = whole
            lines.removeSubrange(range)
            try sample.write(lines)
            let (first, last) = (UInt64(range.lowerBound + 1), UInt64(range.upperBound))
            expect(try sample.verify(), .missing, first, last: last == first ? nil : last)
        }
    }

    @Test func reorderedRecords() throws {
        let sample = try AuditSample.filled()
        var lines = try sample.lines
        lines.swapAt(3, 4)
        try sample.write(lines)
        expect(try sample.verify(), .reordered, 4)
        lines.swapAt(3, 4)
        lines.insert(lines.remove(at: 2), at: 8)
        try sample.write(lines)
        let report = try sample.verify()
        expect(report, .reordered, 3)
        #expect(report.findings.count == 1, "\(report.findings)")
    }

    @Test func insertedRecords() throws {
        let sample = try AuditSample.filled()
        let whole = try sample.lines
        // A copy of another one, beside it and elsewhere; a forged one of the same number; rubbish.
        for place in [4, 5, 9] {
            var lines = whole
            lines.insert(whole[3], at: place)
            try sample.write(lines)
            expect(try sample.verify(), .inserted, 4)
        }
        let records = try sample.records()
        let forged = try AuditRecord(
            sequence: 5, time: records[4].time, kind: "cmk-destroyed", zone: 0, fields: [:], previous: records[3].hash)
        for place in [4, 5] {
            var lines = whole
            lines.insert(forged.line, at: place)
            try sample.write(lines)
            let report = try sample.verify()
            expect(report, .inserted, 5)
            #expect(report.findings.count == 1, "\(report.findings)")
        }
        var lines = whole
        lines.insert("nothing", at: 5)
        try sample.write(lines)
        let report = try sample.verify()
        #expect(report.findings.map(\.what) == [.malformed] && report.findings[0].line == 6)
    }

    /// A forger who makes all later hashes anew: the chain holds, and signature, seal and memory tell.
    @Test func aChainMadeAnew() throws {
        let sample = try AuditSample.filled()
        var records = try sample.records()
        records[3].fields["number"] = "999"
        try sample.write(try sample.rechained(records))
        for report in [
            try sample.verify(), try sample.verify(sealed: false, remembering: false),
            try sample.verify(sealed: false, remembering: false, keySource: .none),
        ] {
            // The checkpoint names the hash that was.
            expect(report, .broken, 7)
        }
        // He fits the checkpoints' heads, too: then their signatures do not.
        var lines = try sample.rechained(records).compactMap { AuditRecord(line: Array($0.utf8)) }
        for index in lines.indices where lines[index].kind == "checkpoint" {
            let through = try #require(lines[index].fields["through"].flatMap { Int($0) })
            lines[index].fields["head"] = Self.hex(lines[through - 1].hash)
            lines = try sample.rechained(lines).compactMap { AuditRecord(line: Array($0.utf8)) }
        }
        try sample.write(lines.map(\.line))
        expect(try sample.verify(sealed: false, remembering: false, keySource: .host), .signature, 8)
        expect(try sample.verify(remembering: false), .head, 13)
        expect(try sample.verify(sealed: false), .head, 13)
    }

    /// Log and key of a forger's own, all consistent.
    @Test func aLogOfAnotherKey() throws {
        let sample = try AuditSample.filled()
        let other = try AuditSample.filled()
        try sample.write(try other.lines)
        let report = try sample.verify()
        expect(report, .key, nil)
        expect(report, .signature, 8)
        expect(report, .head, 13)
        expect(try sample.verify(sealed: false, remembering: false, keySource: .host), .key, nil)
        // Without anyone to vouch for the key, the report says so.
        let alone = try sample.verify(sealed: false, remembering: false, keySource: .none)
        #expect(alone.findings.isEmpty && alone.keySource == .log)
    }

    @Test func cutAtTheEnd() throws {
        let sample = try AuditSample.filled()
        let whole = try sample.lines
        for left in [1, 5, 8, 12] {
            try sample.write(Array(whole.prefix(left)))
            for report in [try sample.verify(remembering: false), try sample.verify(sealed: false)] {
                expect(report, .head, UInt64(left + 1), last: 13)
            }
        }
        try sample.write([])
        #expect(try !sample.verify().findings.isEmpty)
        #expect(try !sample.verify(sealed: false, remembering: false).findings.isEmpty)
    }

    private static func hex(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
