import ArgumentParser
import ControlPlane
import FoundationEssentials
import VolumeEngine
import VolumeFormat

struct ReencryptCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reencrypt", abstract: "Give files new DEKs and encrypt every byte again, in place.",
        discussion: """
            A zone, or with MOUNTPOINT/PATH one directory or file. Mounted, while programs use the files; or offline. What is interrupted \
            goes on by itself with the next mount. Names, and the keys of directories, stay as they are.
            """)

    @Argument(help: "A lower directory, a mount point, or a path in one.", completion: .directory)
    var target: String
    @Option(name: .long, help: ArgumentHelp("At most so many MB (10^6 bytes) a second.", valueName: "MB/s"))
    var rate: UInt32 = 0
    @Flag(name: .long, help: "Programs go first: work a fifth of the time while they read or write.")
    var yield = false
    @Flag(name: .long, help: "Return at once; the daemon does it.")
    var background = false
    @Flag(name: .long, help: "Show what is under way.")
    var status = false
    @Flag(name: .long, help: "Wait until resumed, also after a new mount.")
    var pause = false
    @Flag(name: .long, help: "Go on.")
    var resume = false
    @Flag(name: .long, help: "End it; what is done stays done.")
    var cancel = false
    @Option(name: .long, help: "The zone's number.")
    var zone: UInt32 = 0
    @Flag(name: .long, help: "Print JSON.")
    var json = false

    private struct StatusReport: Encodable {
        var sweeps: [Sweeps.Status]
        var pending: [String]
    }

    func validate() throws {
        guard [status, pause, resume, cancel].count(where: { $0 }) <= 1 else {
            throw ValidationError("--status, --pause, --resume and --cancel exclude each other.")
        }
    }

    func run() throws {
        try reporting {
            ProcessHardening.apply()
            if status { return try showStatus() }
            let zone = ZoneID(rawValue: zone)
            if let action = pause ? "pause" : resume ? "resume" : cancel ? "cancel" : nil {
                let report = try RotationRunner.run(
                    target, .reencryptSteer, ["zone": "\(zone.rawValue)", "action": action]
                ) { try $0.steer(zone, action) }
                return try report.show(json: json)
            }
            var inside = ""
            if case .mounted(_, let path) = try Target(target) { inside = path }
            if case .lower = try Target(target), background {
                throw Failure(
                    .notMounted, "\(target) is not mounted", meaning: "Only a daemon can do it in the background.",
                    remedy: "leave --background away, or mount it first")
            }
            let report = try RotationRunner.run(
                target, .reencrypt,
                [
                    "zone": "\(zone.rawValue)", "path": inside, "rate": "\(rate)", "yields": yield ? "1" : "0",
                    "background": background ? "1" : "0",
                ]
            ) { try $0.reencrypt(zone, path: nil, rate: rate, yields: yield, background: false) }
            try report.show(json: json)
        }
    }

    private func showStatus() throws {
        var sweeps: [Sweeps.Status] = []
        var pending: [String] = []
        switch try Target(target) {
        case .mounted(let record, _):
            sweeps = try DaemonClient.ask(record, .sweeps)
            pending = try Self.noted(record.lower)
        case .lower(let lower): pending = try Self.noted(lower)
        }
        if json { return try printJSON(StatusReport(sweeps: sweeps, pending: pending)) }
        var lines = sweeps.map { sweep in
            "zone \(sweep.zone): \(Sweeps.words(sweep)), \(Rotation.Report.seconds(sweep.seconds)) so far"
        }
        lines += pending.map { "to be done: \($0)" }
        if lines.isEmpty { lines = ["nothing is under way"] }
        FileHandle.standardOutput.write(lines.joined(separator: "\n") + "\n")
    }

    /// What the keyrings say, as they are stored.
    private static func noted(_ lower: String) throws -> [String] {
        do {
            let files = try VolumeFiles(lower: lower)
            return try files.zoneIDs().flatMap { zone in
                try files.keyring(zone).pending.map { "zone \(zone.rawValue): \(Rotation.text($0))" }
            }
        } catch let error as VolumeError { throw Failure(error, lower: lower) }
    }
}
