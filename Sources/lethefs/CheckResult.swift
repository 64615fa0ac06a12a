import FoundationEssentials
import VolumeEngine

/// What `check` tells, as JSON and between daemon and command.
struct CheckResult: Codable, Sendable {
    var directories = 0
    var files = 0
    var links = 0
    var others = 0
    var bytes: UInt64 = 0
    var findings: [VolumeCheck.Finding] = []
    var leftovers: [VolumeCheck.Leftover] = []
    /// Paths in zones whose keys are not here.
    var closed: [String] = []
    /// Entries copied out, with `--salvage`.
    var salvaged: Int?

    init(_ report: VolumeCheck.Report, salvaging: Bool) {
        directories = report.directories
        files = report.files
        links = report.links
        others = report.others
        bytes = report.bytes
        findings = report.findings
        leftovers = report.leftovers
        closed = report.closed
        salvaged = salvaging ? report.salvaged : nil
    }

    /// One line for each finding, then totals.
    var text: String {
        var lines: [String] = []
        for finding in findings {
            let place = finding.page.map { "page \($0)" } ?? finding.object
            lines.append("DAMAGED \(finding.path): \(place): \(finding.reason)")
        }
        for leftover in leftovers {
            lines.append("\(leftover.repaired ? "REPAIRED" : "LEFT OVER") \(leftover.path): \(leftover.kind.rawValue)")
        }
        for path in closed { lines.append("CLOSED \(path): the keys of its zone are not here") }
        if let salvaged { lines.append("\(salvaged) entries copied out") }
        lines.append(
            "\(directories) directories, \(files) files, \(links) links, \(others) others, \(bytes) bytes; "
                + "\(findings.count) damaged")
        return lines.joined(separator: "\n") + "\n"
    }

    var exitCode: Failure.Code? {
        if !findings.isEmpty { return .damageFound }
        return closed.isEmpty ? nil : .incomplete
    }
}

/// How far a check has come.
struct CheckProgress: Codable, Sendable {
    var files = 0
    var bytes: UInt64 = 0
    var findings = 0

    init(_ report: VolumeCheck.Report) {
        files = report.files
        bytes = report.bytes
        findings = report.findings.count
    }

    init() {}

    var text: String { "\r\(files) files, \(bytes >> 20) MiB, \(findings) damaged " }
}
