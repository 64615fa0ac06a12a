import ArgumentParser
import ControlPlane
import FoundationEssentials

/// What `revoke` and `restore` take.
struct ZoneArguments: ParsableArguments {
    @Argument(help: "MOUNTPOINT, or MOUNTPOINT/DIR for the zone that DIR belongs to.", completion: .directory)
    var path: String
    @Option(name: .long, help: "The zone by its number, where its path cannot be looked up.")
    var zone: UInt32?
    @Flag(name: .long, help: "Print JSON.")
    var json = false

    func ask<Result: Codable>(_ verb: ControlVerb) throws -> Result {
        let (daemon, inside) = try Target.daemon(path)
        return try DaemonClient.ask(daemon, verb, zone.map { ["zone": "\($0)"] } ?? ["path": inside])
    }
}

struct RevokeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke", abstract: "Take a zone's keys out of memory now, and make its data unreadable.",
        discussion: """
            What programs have written is stored first; then the keys are wiped, and the kernel's cache is emptied: open files, \
            mappings and names answer EKEYREVOKED until `lethefs restore`. The CMK itself stays as it is: `lethefs cmk disable` \
            switches it off for everybody.
            """)

    @OptionGroup var arguments: ZoneArguments
    @Flag(name: .long, help: "Only say what would lose access: files, open handles, processes.")
    var dryRun = false

    func run() throws {
        try reporting {
            if dryRun { return try BlastRadius(try arguments.ask(.impact)).show(json: arguments.json) }
            let condition: ZoneKeeper.Condition = try arguments.ask(.revoke)
            if arguments.json {
                try printJSON(condition)
            } else {
                FileHandle.standardOutput.write(condition.revocationText)
            }
            try condition.requireProof()
        }
    }
}

struct RestoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore", abstract: "Ask the CMK's owner for a zone's keys again, and go on where it was.")

    @OptionGroup var arguments: ZoneArguments

    func run() throws {
        try reporting {
            let condition: ZoneKeeper.Condition = try arguments.ask(.restore)
            if arguments.json { try printJSON(condition) }
            guard condition.state == "open" else {
                throw Failure(
                    .keyRefused, "the zone stays closed: \(condition.cause ?? "its CMK's owner refuses")",
                    meaning: "It comes back by itself when the owner says yes.",
                    remedy: "lethefs cmk enable, or enable the key at its owner")
            }
            if !arguments.json { FileHandle.standardOutput.write("open: files and mappings work again\n") }
        }
    }
}

extension ZoneKeeper.Condition {
    var revocationText: String {
        guard let report = lastRevocation else { return "\(state): \(cause ?? "")\n" }
        return """
            revoked: zone \(report.zone), \(report.cause)
              \(report.inodes) known inodes, \(report.openFiles) open files
              stored what was written   \(report.drainedMilliseconds) ms\(report.isDrained ? "" : "  NOT ALL: see the log")
              keys wiped                \(report.closedMilliseconds) ms
              kernel's cache emptied    \(report.purgedMilliseconds) ms\(report.isComplete ? "" : "  NOT YET")
              requests' memory wiped    \(report.areRequestsWiped ? "yes" : "when one that takes its time is answered")
              canary \(report.canary.padding(to: 18)) \(report.canaryMilliseconds) ms

            """
    }

    /// A revocation that did not prove itself is a failure, whatever it says.
    func requireProof() throws {
        guard let report = lastRevocation, state == "revoked", !report.isComplete || report.canary == "READ" else {
            return
        }
        throw Failure(
            .internalError, "the revocation is not proven: canary \(report.canary)",
            meaning: "Keys are gone or going; the kernel may still have plaintext in its cache.",
            remedy: "unmount, or kill the daemon: its guardian purges the mount")
    }
}
