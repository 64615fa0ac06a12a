import ArgumentParser
import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import Storage
import Synchronization
import VolumeEngine
import VolumeFormat

struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Read and authenticate everything in a volume.",
        discussion: """
            Without --online the volume must not be mounted. Exit code 0: all is well. 1: something is damaged; each object is named \
            by its plaintext path. 2: nothing is damaged, but the keys of some zone are not here, and it was not read.
            """)

    @Argument(help: "The lower directory, or with --online also the mount point.", completion: .directory)
    var lower: String
    @Option(name: .long, help: ArgumentHelp("Trust this CMK URI for the volume.", valueName: "uri"))
    var root: [String] = []
    @Flag(name: .long, help: "Check a mounted volume beside the programs that use it.")
    var online = false
    @Option(name: .long, help: ArgumentHelp("Read no more than this, in MB/s.", valueName: "MB/s"))
    var rate: Double?
    @Option(name: .long, help: "Threads; by default one for each processor, with --online one.")
    var threads: Int?
    @Flag(name: .long, help: "Settle what a crash left unsettled, and remove what it left over.")
    var repair = false
    @Flag(
        name: .long,
        help: """
            Take the volume as it is, though this host has seen a later state: a backup was restored. With --repair, also the names \
            under which files are found.
            """)
    var acceptRestore = false
    @Option(name: .long, help: ArgumentHelp("Copy all that opens into this directory.", valueName: "dir"))
    var salvage: String?
    @Flag(name: .long, help: "Print the result as JSON.")
    var json = false

    func validate() throws {
        if online, repair || acceptRestore || salvage != nil || !root.isEmpty {
            throw ValidationError("--online goes with --rate, --threads and --json alone.")
        }
        if let rate, !(rate > 0 && rate < 1e9) { throw ValidationError("--rate is a number of MB/s above 0.") }
        if let threads, !(1...64).contains(threads) { throw ValidationError("--threads is 1 to 64.") }
    }

    func run() throws {
        try reporting {
            ProcessHardening.apply()
            let result = online ? try askDaemon() : try checkHere()
            if json {
                try printJSON(result)
            } else {
                FileHandle.standardOutput.write(result.text)
            }
            if let code = result.exitCode { throw ExitCode(code.rawValue) }
        }
    }

    private var bytesPerSecond: UInt64? { rate.map { UInt64($0 * 1e6) } }

    private func checkHere() throws -> CheckResult {
        let path = try Paths.absolute(lower)
        let target = try salvageTarget(path)
        let mount = try open(path)
        let result: CheckResult
        do { result = try check(mount, path, target) } catch {
            // Nothing has crashed: the volume is as it was. Why it failed is said already.
            try? mount.close()
            throw error
        }
        if repair {
            do { try mount.close() } catch { throw Failure(error, lower: path) }
        }
        return result
    }

    private func salvageTarget(_ path: String) throws -> String? {
        guard let salvage else { return nil }
        let target = try Paths.absolute(salvage, mustExist: false)
        guard !Paths.isInside(target, path), !Paths.isInside(path, target) else {
            throw Failure(
                .invalid, "\(target) lies in the volume itself, or the volume in it",
                remedy: "name a directory on other storage")
        }
        return target
    }

    private func check(_ mount: VolumeMount, _ path: String, _ target: String?) throws -> CheckResult {
        var options = VolumeCheck.Options()
        options.threads = threads ?? max(1, min(16, sysconf(Int32(_SC_NPROCESSORS_ONLN))))
        options.bytesPerSecond = bytesPerSecond
        options.repair = repair
        options.salvage = target
        let progress = Progress()
        let check: VolumeCheck
        do { check = try VolumeCheck(mount.volume, options: options) { progress.show(CheckProgress($0)) } } catch {
            throw Failure(
                .storage, "\(salvage ?? path): \(error.message)",
                remedy: error == .notEmpty ? "name a new or an empty directory" : nil)
        }
        mount.volume.manifest?.beginWalk()
        var report = check.run()
        progress.end()
        try compareManifest(mount, &report)
        var result = CheckResult(report, salvaging: salvage != nil)
        try compareEpochs(mount, &result)
        return result
    }

    /// A walk that could read everything makes the manifest complete. Files that it lists and that were not there are a finding, if the
    /// volume was unmounted cleanly since: after a crash some may rightly be gone.
    private func compareManifest(_ mount: VolumeMount, _ report: inout VolumeCheck.Report) throws {
        guard let manifest = mount.volume.manifest else { return }
        guard report.closed.isEmpty else { return }
        guard report.sawAll else {
            // What is damaged is not listed, and nothing is said of it: what opens is accepted all the same.
            if acceptRestore { try store(mount, covering: nil) }
            return
        }
        if !acceptRestore, manifest.unseen > 0, mount.isCompletelyListed {
            report.findings.append(
                VolumeCheck.Finding(
                    path: "/", object: "manifest", page: nil,
                    reason: "\(manifest.unseen) files that it lists are not there; --accept-restore, if that is right"))
            return
        }
        if report.holdsOthers, manifest.unseen > 0 {
            report.leftovers.append(VolumeCheck.Leftover(path: "/", kind: .heldLines, repaired: false))
            if acceptRestore { try store(mount, covering: nil) }
            return
        }
        manifest.dropUnseen()
        try store(mount, covering: mount.lastStoringEpoch)
    }

    private func store(_ mount: VolumeMount, covering epoch: UInt64?) throws {
        do { try mount.storeManifest(covering: epoch) } catch { throw Failure(error, lower: lower) }
    }

    /// Whether this host has seen a later state of the volume.
    private func compareEpochs(_ mount: VolumeMount, _ result: inout CheckResult) throws {
        let (host, volume, epoch) = (Host(), mount.volume.description.volume, mount.storedEpoch)
        if let seen = host.epochSeen(beyond: epoch, readOnly: !repair, volume), !acceptRestore {
            result.findings.append(
                VolumeCheck.Finding(
                    path: "/", object: "volume", page: nil,
                    reason: "older than the last mount on this host: epoch \(epoch), \(seen) was seen; "
                        + "--accept-restore, if a backup was restored"))
            return
        }
        guard repair || acceptRestore else { return }
        let seen = host.readRecord(volume)?.epoch
        try host.noteEpoch(epoch, volume, accepting: acceptRestore)
        guard acceptRestore else { return }
        var fields = ["epoch": "\(epoch)", "seen": seen.map { "\($0)" } ?? "", "findings": "\(result.findings.count)"]
        if mount.volume.hasPlaces { fields["places"] = "\(mount.volume.acceptedPlaces.load(ordering: .relaxed))" }
        if !AuditNote.leave(.lower(try Paths.absolute(lower)), .restoreAccepted, fields) {
            FileHandle.standardError.write("lethefs: the audit log has no record of it\n")
        }
    }

    private func open(_ path: String) throws -> VolumeMount {
        do {
            let files = try VolumeFiles(lower: path)
            let volume = try files.readDescription().value.volume
            guard let roots = try Roots.of(files, given: root, Host().readRecord(volume)) else {
                throw Failure(
                    .keyNotFound, "this host does not know the CMK of \(path)",
                    remedy: "lethefs check \(path) --root URI")
            }
            var options = Volume.Options()
            options.readOnly = !repair
            options.acceptsPlaces = repair && acceptRestore
            return try VolumeMount(
                lower: path, options: options,
                unlocking: KeyringUnlocking { (uri) throws(RootError) in try roots.resolve(uri) },
                manifest: Host().manifest(volume, isLearning: acceptRestore)
            ) { _ in }
        } catch let error as VolumeError { throw Failure(error, lower: path) }
    }

    private func askDaemon() throws -> CheckResult {
        let record = try Target.daemon(lower).record
        var arguments: [String: String] = [:]
        if let bytesPerSecond { arguments["rate"] = "\(bytesPerSecond)" }
        if let threads { arguments["threads"] = "\(threads)" }
        guard isatty(2) == 1 else { return try ask(record, arguments) }
        let progress = Progress()
        let isOver = Ended()
        PlainThread.detach {
            while !isOver.isRaised {
                sleep(1)
                if let now: CheckProgress = try? DaemonClient.ask(record, .checkProgress) { progress.show(now) }
            }
        }
        defer {
            isOver.raise()
            progress.end()
        }
        return try ask(record, arguments)
    }

    private final class Ended: Sendable {
        private let value = Atomic<Bool>(false)
        var isRaised: Bool { value.load(ordering: .acquiring) }
        func raise() { value.store(true, ordering: .releasing) }
    }

    /// A check may take days on a large volume at a low rate.
    private func ask(_ record: RuntimeDirectory.Record, _ arguments: [String: String]) throws -> CheckResult {
        try DaemonClient.ask(record, .check, arguments, timeoutSeconds: 100 * 86_400)
    }
}
