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

/// What became of a CMK and of the zones that hang on it.
struct CMKOutcome: Encodable {
    struct Zone: Encodable {
        var zone: UInt32
        var mountPoint: String?
        var lower: String
        /// How the zone stands after the daemon has asked the owner: "open" or "revoked"; `nil` for one that is not mounted, or does not answer.
        var state: String?
        /// From the owner's acknowledgement to the daemon's.
        var milliseconds: Double?
        var condition: ZoneKeeper.Condition?
        /// Why the key's new state is not in the zone's keyring.
        var notNoted: String?
        /// Whether the volume's audit log has it.
        var isAudited: Bool?
        /// Why the daemon could not be asked.
        var failure: String?
    }

    var uri: String
    /// The key's new state.
    var state: String
    /// From the call to the owner's acknowledgement, read back in a fresh session.
    var ownerMilliseconds: Double
    /// Whether the owner itself still decrypts with the key; then only LetheFS refuses it.
    var usableAtOwner: Bool?
    var zones: [Zone]

    var text: String {
        var lines = ["\(state): \(uri)  (\(ownerMilliseconds) ms, read back from the owner)"]
        if usableAtOwner == true, state != KeyState.active.name {
            lines += [
                "  NOTE  the token goes on decrypting with it for other programs: it notes CKA_DECRYPT and does not enforce it.",
                "        LetheFS refuses the key. Take the key, or the programs' access to it, away with the HSM's own tools.",
            ]
        }
        for zone in zones {
            var line = "  zone \(zone.zone) of \(zone.mountPoint ?? zone.lower): \(zone.state ?? "not mounted")"
            if let milliseconds = zone.milliseconds { line += " after \(milliseconds) ms" }
            if zone.condition?.isHeld == true { line += ", held until lethefs restore" }
            if let failure = zone.failure {
                line = "  zone \(zone.zone) of \(zone.mountPoint ?? zone.lower): \(failure)"
            }
            lines.append(line)
            if let reason = zone.notNoted {
                lines.append("        the new state is not in the zone's keyring: \(reason)")
            }
            if zone.isAudited == false { lines.append("        the volume's audit log has no record of it") }
        }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension CMKTarget {
    /// Has the owner act, then each daemon ask it, and notes the new state: before the act where it takes the key away, since a keyring can
    /// be sealed only while its key is there; after it where it gives the key back.
    func change(
        to state: KeyState, _ act: (any CustomerMasterKey) throws(RootError) -> Void
    ) throws -> CMKOutcome {
        let cmk = try open()
        let isBack = state == .active
        var notNoted = isBack ? [] : places.map { $0.note(state, roots) }
        let start = BootClock.now
        do throws(RootError) { try act(cmk) } catch {
            // Nothing happened: what was noted is taken back, as a state of its own.
            if !isBack {
                for (place, reason) in zip(places, notNoted) where reason == nil {
                    _ = place.note(place.history.last?.state ?? .active, roots)
                }
            }
            throw Failure(error, uri: Roots.withoutPIN(named))
        }
        let acknowledged = BootClock.now
        var zones = places.map { $0.asked(since: acknowledged) }
        if isBack { notNoted = places.map { $0.note(state, roots) } }
        for index in zones.indices {
            zones[index].notNoted = notNoted[index]
            zones[index].isAudited = places[index].audit(state, cmk.uri, zones[index])
        }
        let isUsable = state == .destroyed ? false : try? cmk.isUsableAtOwner()
        return CMKOutcome(
            uri: cmk.uri, state: state.name, ownerMilliseconds: ((acknowledged - start) * 1e5).rounded() / 100,
            usableAtOwner: isUsable, zones: zones)
    }
}

extension CMKTarget.Place {
    /// Leaves a record of what was done. False where there is no log, or it could not be written.
    fileprivate func audit(_ state: KeyState, _ uri: String, _ outcome: CMKOutcome.Zone) -> Bool {
        let kind: AuditKind
        switch state {
        case .active: kind = .cmkEnabled
        case .destroyed: kind = .cmkDestroyed
        default: kind = .cmkDisabled
        }
        var fields = ["cmk": uri]
        fields["zone-state"] = outcome.state
        fields["milliseconds"] = outcome.milliseconds.map { "\($0)" }
        return AuditNote.leave(
            daemon.map { .mounted($0, inside: "") } ?? .lower(lower), kind, zone: ZoneID(rawValue: zone), fields)
    }

    /// Has the zone's daemon ask the owner now; returns when the zone is as the answer demands.
    fileprivate func asked(since start: Double) -> CMKOutcome.Zone {
        var zone = CMKOutcome.Zone(zone: zone, mountPoint: daemon?.mountPoint, lower: lower)
        guard let daemon else { return zone }
        do {
            let condition: ZoneKeeper.Condition = try DaemonClient.ask(daemon, .probe, ["zone": "\(zone.zone)"])
            zone.state = condition.state
            zone.condition = condition
            zone.milliseconds = ((BootClock.now - start) * 1e5).rounded() / 100
        } catch let failure as Failure { zone.failure = failure.what } catch { zone.failure = "\(error)" }
        return zone
    }
}

/// Prints outcomes; a revocation that did not prove itself, or a daemon that did not answer, is a failure.
private func show(_ outcomes: [CMKOutcome], json: Bool) throws {
    if json {
        try printJSON(outcomes)
    } else {
        FileHandle.standardOutput.write(outcomes.map(\.text).joined())
    }
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
                    try targets.map { target in
                        try target.change(to: .suspended) { (cmk) throws(RootError) in try cmk.setEnabled(false) }
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
                        try target.change(to: .active) { (cmk) throws(RootError) in try cmk.setEnabled(true) }
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
                    [try target.change(to: .destroyed) { (cmk) throws(RootError) in try cmk.destroy() }],
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
