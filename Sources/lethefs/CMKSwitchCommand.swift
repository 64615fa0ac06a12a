import ArgumentParser
import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import VolumeFormat

/// What `cmk disable`, `enable` and `destroy` take.
struct CMKArguments: ParsableArguments {
    @Argument(help: "A lower directory, a mount point or a path in it (its zone's CMKs), or a root URI.")
    var target: String
    @Option(name: .long, help: "The zone by its number.")
    var zone: UInt32?
    @Option(name: .long, help: "Which of a zone's CMKs: its URI, or its label.")
    var cmk: String?
    @Flag(name: .long, help: "Print JSON.")
    var json = false

    func find() throws -> [CMKTarget] { try CMKTarget.find(target, zone: zone, cmk: cmk) }
}

/// Prints outcomes; an owner that refused, a revocation that did not prove itself, or a daemon that did not answer, is a failure.
private func show(_ outcomes: [CMKOutcome], json: Bool) throws {
    if json {
        try printJSON(outcomes)
    } else {
        FileHandle.standardOutput.write(outcomes.map(\.text).joined())
    }
    let refused = outcomes.compactMap(\.error)
    // The last one is told where commands tell their failures.
    for failure in refused.dropLast() { failure.report() }
    if let failure = refused.last { throw failure }
    for zone in outcomes.flatMap(\.zones) {
        try zone.condition?.requireProof()
        if let failure = zone.failure {
            throw Failure(
                .notMounted, "zone \(zone.zone) of \(zone.mountPoint ?? zone.lower): \(failure)",
                meaning: "The key is changed at its owner; whether the mount has followed is not known.",
                remedy: "lethefs status; its lease bounds how long it can go on")
        }
    }
}

extension CMKCommand {
    struct Disable: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "disable",
            abstract: "Switch a CMK off in its token, for every program; what hangs on it becomes unreadable.",
            discussion: """
                The token is told (CKA_DECRYPT and CKA_UNWRAP), and read back in a fresh session. The daemons of this host that use the key \
                ask it at once; the command returns when their zones are revoked. `cmk enable` brings everything back without a remount.
                """)

        @OptionGroup var arguments: CMKArguments
        @Flag(name: .long, help: "Only say what would lose access: zones, files, open handles, processes.")
        var dryRun = false

        func run() throws {
            try reporting {
                ProcessHardening.apply()
                let targets = try arguments.find()
                if dryRun { return try BlastRadius(of: targets.flatMap(\.places)).show(json: arguments.json) }
                try show(
                    targets.map { target in
                        target.change(to: .suspended) { (cmk) throws(RootError) in try cmk.setEnabled(false) }
                    }, json: arguments.json)
            }
        }
    }

    struct Enable: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "enable", abstract: "Switch a CMK on again in its token; what hangs on it comes back.")

        @OptionGroup var arguments: CMKArguments

        func run() throws {
            try reporting {
                ProcessHardening.apply()
                try show(
                    try arguments.find().map { target in
                        target.change(to: .active) { (cmk) throws(RootError) in try cmk.setEnabled(true) }
                    }, json: arguments.json)
            }
        }
    }

    struct Destroy: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "destroy",
            abstract: "Destroy a CMK in its token, for good: what only it opens, copies and backups too, is lost.",
            discussion: """
                Asks for the key's label on the terminal, or takes it by --yes. A backup of the token or HSM may still hold the key: \
                destroy it there, too.
                """)

        @OptionGroup var arguments: CMKArguments
        @Option(name: .long, help: ArgumentHelp("The key's label, as confirmation.", valueName: "name"))
        var yes: String?

        func run() throws {
            try reporting {
                ProcessHardening.apply()
                let targets = try arguments.find()
                guard targets.count == 1, let target = targets.first else {
                    throw Failure(
                        .invalid, "the zone has \(targets.count) CMKs", meaning: "One is destroyed at a time.",
                        remedy: "--cmk with one of\n" + targets.map { "    \($0.named)" }.joined(separator: "\n"))
                }
                try confirm(target)
                try show(
                    [target.change(to: .destroyed) { (cmk) throws(RootError) in try cmk.destroy() }],
                    json: arguments.json)
            }
        }

        private func confirm(_ target: CMKTarget) throws {
            let cmk = try target.open()
            let name: String
            do throws(RootError) {
                let description = try cmk.describe()
                name = description.label.isEmpty ? description.id : description.label
            } catch { throw Failure(error, uri: Roots.withoutPIN(target.named)) }
            var given = yes
            if given == nil, isatty(0) == 1 {
                let zones = target.places.map { "  \($0.words)\n" }.joined()
                FileHandle.standardError.write(
                    "This destroys the key \(cmk.uri)\n\(zones)What only it opens is lost for good. The key's name: ")
                given = readLine()
            }
            guard given == name else {
                throw Failure(
                    .invalid, given == nil ? "destroying a key wants its name" : "that is not the key's name",
                    meaning: "Nothing was changed.", remedy: "--yes NAME, with the label that lethefs cmk show prints")
            }
        }
    }
}
