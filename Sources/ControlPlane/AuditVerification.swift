import Ciphers
import KeyManagement
import VolumeFormat

/// Walks a log, and says what was changed, is missing, was put in or moved (AUDIT.md §5). Pure: lines in, a report out.
///
/// The order of records is judged at the end, when it is known which numbers there are.
package struct AuditVerification {
    /// More are counted together: a log of rubbish could have millions.
    package static let maximumFindings = 1000

    private struct Link {
        var sequence: UInt64
        var hash: [UInt8]
        var previous: [UInt8]
        var line: Int
    }

    private struct Checkpoint {
        var sequence: UInt64
        var through: UInt64
        var head: [UInt8]
        var signature: Signature?
        var line: Int
    }

    private let trust: AuditTrust
    private var report = AuditReport()
    private var links: [Link] = []
    private var checkpoints: [Checkpoint] = []
    private var ownKeys: [[UInt8]] = []
    private var line = 0
    /// Lines that are no records, since the last record.
    private var rubbish: [(line: Int, bytes: [UInt8], isComplete: Bool)] = []
    private var unsigned = 0
    private var endsWithNewline = true

    package init(_ trust: AuditTrust) { self.trust = trust }

    /// The next line, without its newline.
    package mutating func add(_ bytes: [UInt8], isComplete: Bool) {
        line += 1
        endsWithNewline = isComplete
        guard let record = AuditRecord(line: bytes) else {
            if rubbish.count < Self.maximumFindings { rubbish.append((line, bytes, isComplete)) }
            return
        }
        settleRubbish(before: record)
        report.records += 1
        if report.firstTime == nil { report.firstTime = record.time }
        report.lastTime = record.time
        if (try? record.computedHash()) != record.hash {
            find(.init(.changed, record.sequence, line: line, "record \(record.sequence) was changed"))
        }
        if links.isEmpty { begin(record) }
        links.append(
            Link(sequence: record.sequence, hash: record.hash, previous: record.previous, line: line))
        switch AuditKind(rawValue: record.kind) {
        case .checkpoint: note(checkpoint: record)
        case .logStarted, .signingKeyChanged:
            if let key = record.fields["publicKey"].flatMap({ Base64.decode($0) }) { ownKeys.append(key) }
        case .logDamaged:
            let what = record.fields["what"] ?? "the log was damaged"
            find(.init(.told, record.sequence, line: line, "record \(record.sequence) (\(record.time)) says: \(what)"))
        default: break
        }
    }

    /// Lines so far.
    package var count: Int { line }

    /// The rest is not looked at.
    package mutating func giveUp(_ reason: String) { find(.init(.malformed, nil, line: line, reason)) }

    /// The report, once all lines were added.
    package consuming func finish() -> AuditReport {
        settleEnd()
        checkOrder()
        checkCheckpoints()
        checkHeads()
        if unsigned > 0 { report.notes.append("\(unsigned) checkpoints carry no signature; their records say why") }
        return report
    }

    private mutating func find(_ finding: AuditReport.Finding) {
        if report.findings.count < Self.maximumFindings { report.findings.append(finding) }
    }

    private mutating func begin(_ record: AuditRecord) {
        guard record.sequence == 1 else { return }
        guard record.kind == AuditKind.logStarted.rawValue, record.previous == AuditRecord.noHash else {
            return find(.init(.beginning, 1, line: line, "the first record is not the beginning of a log"))
        }
        if let volume = trust.volume, record.fields["volume"] != volume {
            find(.init(.beginning, 1, line: line, "the log belongs to another volume"))
        }
    }

    /// A write that a crash cut off counts as that only if the next record says so, and has its hash.
    private mutating func settleRubbish(before record: AuditRecord) {
        guard !rubbish.isEmpty else { return }
        var bytes = rubbish.flatMap { $0.isComplete ? $0.bytes + [UInt8(ascii: "\n")] : $0.bytes }
        if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
        if record.kind == AuditKind.logRepaired.rawValue,
            record.fields["sha256"] == (try? SHA256.digest(bytes)).map(AuditText.hex)
        {
            report.notes.append(
                "line \(rubbish[0].line) holds a write that a crash cut off; record \(record.sequence) says so")
        } else {
            findRubbish(through: line - 1, "before record \(record.sequence)")
        }
        rubbish = []
    }

    private mutating func findRubbish(through last: Int, _ place: String) {
        guard let first = rubbish.first?.line, first <= last else { return }
        let words =
            first == last
            ? "line \(first), \(place), is no record" : "lines \(first) to \(last), \(place), are no records"
        find(.init(.malformed, nil, line: first, words))
    }

    private mutating func settleEnd() {
        let last = links.last?.sequence ?? 0
        if !rubbish.isEmpty {
            // Without its newline, and at the very end: under way, or cut off by a crash.
            if !endsWithNewline {
                report.notes.append(
                    trust.isLive
                        ? "a record is being written"
                        : "the last line is cut off, as by a crash; the next mount notes it")
            }
            findRubbish(through: endsWithNewline ? line : line - 1, "after record \(last)")
        }
        rubbish = []
        if links.isEmpty, report.findings.isEmpty { find(.init(.beginning, nil, "the log is empty")) }
    }

    private mutating func checkOrder() {
        let present = Set(links.map(\.sequence)).sorted()
        var expected: UInt64 = 1
        // Hashes that the next record may follow: several, where one number is there twice.
        var heads: [[UInt8]] = [AuditRecord.noHash]
        var seen: Set<UInt64> = []
        for link in links {
            defer { seen.insert(link.sequence) }
            if link.sequence < expected {
                if seen.contains(link.sequence) {
                    find(
                        .init(
                            .inserted, link.sequence, line: link.line,
                            "there is another record \(link.sequence), in line \(link.line)"))
                    if link.sequence + 1 == expected { heads.append(link.hash) }
                }
                continue
            }
            if link.sequence > expected {
                skip(expected, to: link, present)
            } else if !heads.contains(link.previous) {
                find(
                    .init(
                        .broken, link.sequence, line: link.line,
                        link.sequence == 1
                            ? "record 1 follows something"
                            : "record \(link.sequence) does not follow record "
                                + "\(link.sequence - 1): one of the two was replaced"))
            }
            expected = link.sequence &+ 1
            heads = [link.hash]
        }
    }

    /// From `expected` on, records are not where they should be: they come later, or not at all.
    private mutating func skip(_ expected: UInt64, to link: Link, _ present: [UInt64]) {
        var next = expected
        var index = Self.firstIndex(in: present, notBelow: expected)
        while next < link.sequence {
            let isPresent = present[index] == next
            var end = next
            if isPresent {
                while index + 1 < present.count, present[index + 1] == end + 1, end + 1 < link.sequence {
                    (index, end) = (index + 1, end + 1)
                }
                index += 1
            } else {
                // The link itself is present: there is always a next one.
                end = present[index] - 1
            }
            let (records, last) = end == next ? ("record \(next)", nil) : ("records \(next) to \(end)", end)
            let place = "record \(link.sequence), in line \(link.line)"
            find(
                isPresent
                    ? .init(.reordered, next, last: last, line: link.line, "\(records) only after \(place)")
                    : .init(.missing, next, last: last, line: link.line, "\(records) missing before \(place)"))
            next = end + 1
        }
    }

    private static func firstIndex(in sorted: [UInt64], notBelow value: UInt64) -> Int {
        var (low, high) = (0, sorted.count)
        while low < high {
            let middle = (low + high) / 2
            if sorted[middle] < value { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func note(checkpoint record: AuditRecord) {
        report.checkpoints += 1
        guard let through = record.fields["through"].flatMap({ UInt64($0) }),
            let head = record.fields["head"].flatMap({ AuditText.bytes(hex: $0, count: SHA256.size) })
        else {
            return find(.init(.signature, record.sequence, line: line, "checkpoint \(record.sequence) names no record"))
        }
        var signature: Signature?
        if let key = record.fields["key"], let bytes = record.fields["signature"].flatMap({ Base64.decode($0) }) {
            signature = Signature(keyID: key, bytes: bytes)
        } else {
            unsigned += 1
        }
        checkpoints.append(
            Checkpoint(sequence: record.sequence, through: through, head: head, signature: signature, line: line))
    }

    private mutating func checkCheckpoints() {
        let keys = trust.keySource == .none ? ownKeys : trust.keys
        report.keySource = trust.keySource == .none && !ownKeys.isEmpty ? .log : trust.keySource
        report.keys = keys.compactMap { try? Signature.keyID(of: $0) }
        var hashes: [UInt64: [UInt8]] = [:]
        for link in links where hashes[link.sequence] == nil { hashes[link.sequence] = link.hash }
        if trust.keySource != .none {
            for key in ownKeys where !trust.keys.contains(key) {
                let id = (try? Signature.keyID(of: key)) ?? "a key"
                find(.init(.key, nil, "the log names key \(id.prefix(16))…, which is not the volume's"))
            }
        }
        for checkpoint in checkpoints {
            let number = checkpoint.sequence
            if let hash = hashes[checkpoint.through], hash != checkpoint.head {
                find(
                    .init(
                        .broken, checkpoint.through, line: checkpoint.line,
                        "record \(checkpoint.through) is not the one that checkpoint \(number) was made over"))
            }
            guard let signature = checkpoint.signature else { continue }
            guard let volume = trust.volume.flatMap({ UniqueID($0) }) else { continue }
            let message = AuditMessage.checkpoint(volume, sequence: checkpoint.through, hash: checkpoint.head)
            if keys.contains(where: { signature.fits(message, publicKey: $0) }) {
                report.signedCheckpoints += 1
                report.signedThrough = max(report.signedThrough, checkpoint.through)
            } else {
                let since = report.signedThrough + 1
                find(
                    .init(
                        .signature, number, line: checkpoint.line,
                        report.keys.contains(signature.keyID)
                            ? "the signature of checkpoint \(number) does not fit: it, or a record from \(since) to "
                                + "\(checkpoint.through), was made by somebody else"
                            : "checkpoint \(number) is signed by a key that is not the volume's"))
            }
        }
        if !keys.isEmpty, report.signedCheckpoints == 0, report.findings.isEmpty, trust.keySource != .log, !trust.isLive
        {
            find(.init(.signature, nil, "nothing is signed, and the volume has a key"))
        }
    }

    private mutating func checkHeads() {
        for problem in trust.brokenSeals { find(.init(.seal, nil, problem)) }
        if let head = trust.sealedHead, holds(head, "sealed under the KEK") { report.sealedThrough = head.sequence }
        if let head = trust.remembered, holds(head, "that this host remembers") {
            report.rememberedThrough = head.sequence
        }
    }

    private mutating func holds(_ head: (sequence: UInt64, hash: [UInt8]), _ which: String) -> Bool {
        if links.contains(where: { $0.sequence == head.sequence && $0.hash == head.hash }) { return true }
        let last = links.map(\.sequence).max() ?? 0
        if last < head.sequence {
            find(
                .init(
                    .head, last + 1, last: head.sequence,
                    "records \(last + 1) to \(head.sequence) are missing at the end: record \(head.sequence) is the one \(which)"
                ))
        } else {
            find(.init(.head, head.sequence, "record \(head.sequence) is not the one \(which)"))
        }
        return false
    }
}
