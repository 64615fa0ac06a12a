import ArgumentParser
import ControlPlane
import FoundationEssentials
import VolumeEngine
import VolumeFormat

/// What the commands that rotate a zone's keys have in common.
struct RotationArguments: ParsableArguments {
    @Argument(help: "A lower directory or a mount point.", completion: .directory)
    var target: String
    @Option(name: .long, help: "The zone's number.")
    var zone: UInt32 = 0
    @Flag(name: .long, help: "Print JSON.")
    var json = false

    /// Runs a rotation where the volume is, and shows what it did.
    func run(
        _ verb: ControlVerb, _ arguments: [String: String], _ offline: (Rotation, ZoneID) throws -> Rotation.Report
    ) throws {
        try reporting {
            ProcessHardening.apply()
            let zone = ZoneID(rawValue: zone)
            let asked = arguments.merging(["zone": "\(zone.rawValue)"]) { $1 }
            try RotationRunner.run(target, verb, asked) { try offline($0, zone) }.show(json: json)
        }
    }
}

struct KEKCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kek", abstract: "Key-encryption keys: new versions, and the end of old ones.",
        subcommands: [Rotate.self, Retire.self])

    struct Rotate: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "rotate", abstract: "Make a new KEK version and wrap every DEK by it.",
            discussion: """
                One header sector of each file is written; no contents are encrypted again, so whoever had the old KEK and an old \
                copy still reads what was there then. lethefs reencrypt  makes new DEKs.
                """)

        @OptionGroup var common: RotationArguments
        @Flag(name: .long, help: "The version until now is compromised: re-encryption is due at once.")
        var compromised = false

        func run() throws {
            try common.run(.kekRotate, ["compromised": compromised ? "1" : "0"]) { rotation, zone in
                try rotation.rotateKEK(zone, compromised: compromised)
            }
        }
    }

    struct Retire: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "retire", abstract: "Destroy a KEK version that protects nothing any more.",
            discussion: """
                Every header is read first; if one still needs the version, nothing is done (exit code 41). Otherwise it is destroyed in \
                the keyring and, by its version key, in the token: then old copies of the keyring do not open it either.
                """)

        @OptionGroup var common: RotationArguments
        @Argument(help: "The version to destroy.")
        var version: UInt32

        func run() throws {
            try common.run(.kekRetire, ["version": "\(version)"]) { rotation, zone in
                try rotation.retire(zone, KeyVersion(rawValue: version))
            }
        }
    }
}

extension CMKCommand {
    struct Rotate: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "rotate", abstract: "Wrap the KEKs by a new CMK.",
            discussion: """
                Without --root a key is generated beside the old one, named after it. No DEK and no contents change. The old CMK stays in \
                its token, deactivated in the keyring; old copies of the keyring open with it only as far as their version keys are \
                there, and those are destroyed.
                """)

        @OptionGroup var common: RotationArguments
        @Option(name: .long, help: ArgumentHelp("URI of the new CMK; may be repeated.", valueName: "uri"))
        var root: [String] = []

        func run() throws {
            let list = String(decoding: try JSONEncoder().encode(root), as: UTF8.self)
            try common.run(.cmkRotate, ["roots": list]) { rotation, zone in try rotation.rotateCMK(zone, root) }
        }
    }
}

extension Rotation.Report {
    func show(json: Bool) throws {
        if json { return try printJSON(self) }
        var lines = [
            "zone \(zone)",
            "  CMK          \(newCMK ? "new: every KEK is wrapped by it" : "as before")",
        ]
        lines += cmks.map { "               \($0)" }
        lines.append("  KEK          \(newKEK ? "new: v\(kek) is active" : "as before: v\(kek) is active")")
        lines.append(
            "  DEK wraps    "
                + (rewrapped > 0 ? "new: \(rewrapped) headers rewrapped, of \(files) files" : "as before"))
        lines.append(
            "  contents     "
                + (reencrypted > 0
                    ? "encrypted again: \(reencrypted) files" : "as before: under the DEKs that they had"))
        if versionKeysDestroyed > 0 { lines.append("  destroyed    \(versionKeysDestroyed) version keys in the token") }
        if !unguarded.isEmpty {
            let versions = unguarded.map { "v\($0)" }.joined(separator: ", ")
            lines.append(
                "  note         \(versions): no version key; old copies of the keyring open it under their CMK")
        }
        for work in pending { lines.append("  to be done   \(work)") }
        lines.append("  took         \(Self.seconds(seconds))")
        FileHandle.standardOutput.write(lines.joined(separator: "\n") + "\n")
    }

    static func seconds(_ seconds: Double) -> String { "\(Double(Int(seconds * 100)) / 100) s" }
}
