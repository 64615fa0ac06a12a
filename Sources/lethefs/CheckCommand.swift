import ArgumentParser
import CLinux
import FoundationEssentials
import KeyManagement
import VolumeEngine
import VolumeFormat

struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Read and authenticate everything in a volume that is not mounted.",
        discussion: "Exit code 0: all is well. 1: something is damaged; each object is named by its plaintext path.")

    @Argument(help: "The lower directory.", completion: .directory)
    var lower: String
    @Option(name: .long, help: ArgumentHelp("Trust this CMK URI for the volume.", valueName: "uri"))
    var root: [String] = []
    @Flag(name: .long, help: "Print the result as JSON.")
    var json = false

    private struct Result: Encodable {
        struct Finding: Encodable {
            var path: String
            var object: String
            var page: UInt64?
            var reason: String
        }
        var directories: Int
        var files: Int
        var links: Int
        var others: Int
        var bytes: UInt64
        var findings: [Finding]
    }

    func run() throws {
        try reporting {
            ProcessHardening.apply()
            let path = try Paths.absolute(lower)
            let observer = VolumeCheck.Observer()
            let mount = try open(path, observer)
            let progress = Progress()
            var check = VolumeCheck(mount.volume, observer: observer) { progress.show($0) }
            let report = check.run()
            progress.end()
            try show(report)
            if !report.findings.isEmpty { throw ExitCode(Failure.Code.damageFound.rawValue) }
        }
    }

    private func open(_ path: String, _ observer: VolumeCheck.Observer) throws -> VolumeMount {
        do {
            let volume = try VolumeFiles(lower: path).readDescription().value.volume
            let trusted = root.isEmpty ? Host().readRecord(volume)?.roots ?? [] : root
            guard !trusted.isEmpty else {
                throw Failure(
                    .keyNotFound, "this host does not know the CMK of \(path)",
                    remedy: "lethefs check \(path) --root URI")
            }
            let roots = Roots(trusted: trusted)
            var options = Volume.Options()
            options.readOnly = true
            return try VolumeMount(
                lower: path, options: options,
                unlocking: KeyringUnlocking { (uri) throws(RootError) in try roots.resolve(uri) }
            ) { observer.note($0) }
        } catch let error as VolumeError { throw Failure(error, lower: path) }
    }

    private func show(_ report: VolumeCheck.Report) throws {
        if json {
            return try printJSON(
                Result(
                    directories: report.directories, files: report.files, links: report.links, others: report.others,
                    bytes: report.bytes,
                    findings: report.findings.map {
                        .init(path: $0.path, object: $0.object, page: $0.page, reason: $0.reason)
                    }))
        }
        for finding in report.findings {
            let place = finding.page.map { "page \($0)" } ?? finding.object
            FileHandle.standardOutput.write("DAMAGED \(finding.path): \(place): \(finding.reason)\n")
        }
        FileHandle.standardOutput.write(
            "\(report.directories) directories, \(report.files) files, \(report.links) links, \(report.others) others, "
                + "\(report.bytes) bytes; \(report.findings.count) damaged\n")
    }

    /// A line on a terminal, at most once a second.
    private final class Progress {
        private var last: time_t = time(nil)
        private var shown = false

        func show(_ report: VolumeCheck.Report) {
            let now = time(nil)
            guard now != last, isatty(2) == 1 else { return }
            last = now
            shown = true
            FileHandle.standardError.write(
                "\r\(report.files) files, \(report.bytes >> 20) MiB, \(report.findings.count) damaged ")
        }

        func end() { if shown { FileHandle.standardError.write("\n") } }
    }
}
