import ArgumentParser
import CLinux
import ControlPlane
import FoundationEssentials
import Storage
import VolumeEngine

struct AuditCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit", abstract: "The volume's log of key events.", subcommands: [Show.self, Verify.self])

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Print the records of the log. They are not verified.")

        @Argument(help: "A lower directory or a mount point.", completion: .directory)
        var target: String
        @Flag(name: .long, help: "Print the records as the log has them: a JSON object a line.")
        var json = false
        @Option(
            name: .long,
            help: ArgumentHelp(
                "Only records since then: a time (UTC) or its beginning, such as 2027-01-31, or an age, such as 15m, 2h, 7d.",
                valueName: "time"))
        var since: String?
        @Option(name: .long, help: ArgumentHelp("Only records of this kind; may be repeated.", valueName: "kind"))
        var kind: [String] = []

        func run() throws {
            try reporting {
                let start = try since.map { text in
                    guard let time = AuditTime.parse(since: text) else {
                        throw Failure(
                            .invalid, "\"\(text)\" is no time", remedy: "--since 2027-01-31T12:30  or  --since 2h")
                    }
                    return time
                }
                for name in kind where AuditKind(rawValue: name) == nil {
                    throw Failure(
                        .invalid, "there is no kind \"\(name)\"",
                        remedy: "one of " + AuditKind.allCases.map(\.rawValue).joined(separator: " "))
                }
                let source = try AuditSource(target)
                try source.forEachLine { line in
                    guard let record = AuditRecord(line: line) else {
                        // JSON's readers get records only.
                        if !json, start == nil, kind.isEmpty {
                            FileHandle.standardOutput.write("?  a line that is no record\n")
                        }
                        return
                    }
                    if let start, record.time < start { return }
                    if !kind.isEmpty, !kind.contains(record.kind) { return }
                    FileHandle.standardOutput.write((json ? record.line : record.text) + "\n")
                }
            }
        }
    }

    struct Verify: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "verify", abstract: "Find changed, missing, inserted and reordered records.",
            discussion: """
                Exit code 0: the log is whole, as far as it could be checked (the answer says how far). 1: it is not; each \
                finding names the record. Needs no key for the chain and the signatures. Whether the end was cut off is told \
                by the daemon of a mounted volume, or by the token.
                """)

        @Argument(help: "A lower directory or a mount point.", completion: .directory)
        var target: String
        @Option(name: .long, help: ArgumentHelp("Trust this CMK URI for the volume.", valueName: "uri"))
        var root: [String] = []
        @Flag(name: .long, help: "Print the result as JSON.")
        var json = false

        func run() throws {
            try reporting {
                ProcessHardening.apply()
                let source = try AuditSource(target)
                let (trust, remarks) = try source.trust(roots: root)
                var report = try source.verify(trust)
                report.notes = remarks + report.notes
                if json {
                    try printJSON(report)
                } else {
                    FileHandle.standardOutput.write(report.text)
                }
                if !report.findings.isEmpty { throw ExitCode(Failure.Code.damageFound.rawValue) }
            }
        }
    }
}

extension AuditRecord {
    /// A line for people: values are quoted where they are not one plain word.
    fileprivate var text: String {
        let pairs = sortedFields.map { key, value in
            let isPlain =
                !value.isEmpty && value.unicodeScalars.allSatisfy { $0.value > 0x20 && $0.value < 0x7F && $0 != "\"" }
            return " \(key)=\(isPlain ? value : AuditText.quoted(value))"
        }
        return "\(sequence)  \(time)  \(AuditText.plain(kind))\(zone.map { "  zone \($0)" } ?? "") \(pairs.joined())"
    }
}

extension AuditReport {
    fileprivate var text: String {
        var lines = findings.map { finding in
            "DAMAGED \(finding.detail)\(finding.line.map { " (line \($0))" } ?? "")"
        }
        let span =
            firstTime.flatMap { first in lastTime.map { ", \(AuditText.plain(first)) to \(AuditText.plain($0))" } }
            ?? ""
        lines.append("records      \(records)\(span)")
        lines.append("signed       " + signedText)
        lines.append(
            "sealed       " + (sealedThrough.map { "record \($0), and all before it, are there" } ?? "not checked"))
        lines.append(
            "remembered   "
                + (rememberedThrough.map { "record \($0), and all before it, are those that this host saw" }
                    ?? "not checked"))
        lines += notes.map { "note         \(AuditText.plain($0))" }
        lines.append(findings.isEmpty ? "nothing is amiss" : "\(findings.count) findings")
        return lines.joined(separator: "\n") + "\n"
    }

    private var signedText: String {
        let good = "\(signedCheckpoints) of \(checkpoints) checkpoints, through record \(signedThrough)"
        switch keySource {
        case .sealed: return good + "; the volume's KEK vouches for the key"
        case .host: return good + "; this host remembers the key"
        case .log: return good + "; the key is ONLY THE LOG'S OWN: whoever made the log anew could have put in his"
        case .none: return "NOT SIGNED: there is no signing key"
        }
    }
}
