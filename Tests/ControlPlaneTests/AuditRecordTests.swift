import CLinux
import ControlPlane
import Testing

/// The record's encoding, against values written down by hand (AUDIT.md §2).
@Suite struct AuditRecordTests {
    private func sample() throws -> AuditRecord {
        try AuditRecord(
            sequence: 7, time: "2027-01-31T12:30:00.250Z", kind: "revoked", zone: 3,
            fields: ["cause": "by \"command\"\n", "errno": "128"], previous: [UInt8](repeating: 0x11, count: 32))
    }

    @Test func canonicalEncodingIsGolden() throws {
        let record = try sample()
        let expected: [[UInt8]] = [
            Array("LETHEAUD".utf8), [1, 0], [7, 0, 0, 0, 0, 0, 0, 0],
            [24, 0], Array("2027-01-31T12:30:00.250Z".utf8), [7, 0], Array("revoked".utf8),
            [1], [3, 0, 0, 0], [2, 0],
            [5, 0], Array("cause".utf8), [13, 0], Array("by \"command\"\n".utf8),
            [5, 0], Array("errno".utf8), [3, 0], Array("128".utf8),
            [UInt8](repeating: 0x11, count: 32),
        ]
        #expect(record.canonical == Array(expected.joined()))
        // Of sha256sum(1) over those bytes.
        #expect(record.line.hasSuffix("\"hash\":\"\(Self.goldenHash)\"}"), "\(record.line)")
        let ones = String(repeating: "11", count: 32)
        #expect(
            record.line == #"{"sequence":7,"time":"2027-01-31T12:30:00.250Z","kind":"revoked","zone":3,"#
                + #""fields":{"cause":"by \"command\"\u000a","errno":"128"},"previous":""# + ones
                + #"","hash":""# + Self.goldenHash + #""}"#)
    }

    private static let goldenHash = "13ad6340dfdc3ab80f435288101423f120c08211752ae202be1cdd6c025a777a"

    @Test func onlyTheOneFormIsARecord() throws {
        let line = try sample().line
        #expect(AuditRecord(line: Array(line.utf8)) == (try sample()))
        let others = [
            line + " ", " " + line, line.replacing("\"zone\":3", with: "\"zone\": 3"),
            line.replacing("\"zone\":3", with: "\"zone\":3,\"more\":1"), line.replacing("\\u000a", with: "\\n"),
            line.replacing("\\u000a", with: "\\u000A"), line.replacing("\"sequence\":7", with: "\"sequence\":7.0"),
            line.replacing("\"sequence\":7", with: "\"sequence\":-7"), line.replacing("1111", with: "111"),
            line.replacing("\"fields\":{", with: "\"fields\":{\"\":\"\","), "{}", "", "null", "[]",
            line.replacing(
                "\"cause\":\"by \\\"command\\\"\\u000a\",\"errno\":\"128\"",
                with: "\"errno\":\"128\",\"cause\":\"by \\\"command\\\"\\u000a\""),
        ]
        for other in others where other != line { #expect(AuditRecord(line: Array(other.utf8)) == nil, "\(other)") }
        #expect(AuditRecord(line: Array(line.utf8) + [0]) == nil)
        #expect(AuditRecord(line: [UInt8](repeating: 0, count: 4096)) == nil)
    }

    /// Whatever a caller hands over, the line stays one line, bounded, and reads back.
    @Test func fieldsAreBoundedAndEscaped() throws {
        var generator = SystemRandomNumberGenerator()
        let pieces = [
            "a", "é", "\u{1F511}", "\n", "\u{1B}[31m", "\"", "\\", "\u{202E}", "\u{0}", "e\u{301}", " ", "\u{85}",
        ]
        for _ in 0..<40 {
            var fields: [String: String] = [:]
            for index in 0..<Int.random(in: 0..<50, using: &generator) {
                fields["f\(index)"] =
                    (0..<Int.random(in: 0..<1500, using: &generator)).compactMap { _ in
                        pieces.randomElement(using: &generator)
                    }.joined()
            }
            let record = try AuditRecord(
                sequence: 1, time: AuditTime.now(), kind: "mounted", zone: nil, fields: fields,
                previous: AuditRecord.noHash)
            let line = Array(record.line.utf8)
            #expect(line.count < AuditRecord.maximumLine && record.fields.count <= AuditRecord.maximumFields)
            #expect(line.allSatisfy { $0 >= 0x20 && $0 != 0x7F })
            let back = try #require(AuditRecord(line: line))
            #expect(try back.computedHash() == record.hash)
        }
    }

    @Test(arguments: [
        ("2027-01-31", "2027-01-31"), ("2027-01-31T12:30", "2027-01-31T12:30"),
        ("2027-01-31T12:30:00Z", "2027-01-31T12:30:00"), ("2027-01-31T12:30:00.250Z", "2027-01-31T12:30:00.250Z"),
        ("yesterday", nil), ("2027-1-31", nil), ("2027/01/31", nil), ("", nil), ("-5m", nil), ("2027-01-31T", nil),
    ])
    func parsesTimes(text: String, expected: String?) { #expect(AuditTime.parse(since: text) == expected) }

    @Test func parsesAges() throws {
        let hour = try #require(AuditTime.parse(since: "1h"))
        #expect(hour < AuditTime.now() && hour > AuditTime.text(seconds: time(nil) - 3700))
        #expect(AuditTime.text(seconds: 0) == "1970-01-01T00:00:00.000Z")
        #expect(AuditTime.text(seconds: 1_801_398_600, milliseconds: 7) == "2027-01-31T12:30:00.007Z")
    }
}
