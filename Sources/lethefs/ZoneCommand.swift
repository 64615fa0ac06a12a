import ArgumentParser
import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import KeyProviderPKCS11
import VolumeFormat

struct ZoneCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "zone", abstract: "Zones: subtrees with a CMK and a KEK line of their own.",
        subcommands: [Create.self, Assign.self, List.self])

    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create",
            abstract: "Make a directory of a mounted volume the root of a new zone.",
            discussion: """
                The directory is new, or empty, or holds a tree: that becomes the zone's while programs use it, and every file in it \
                gets a new DEK. Without --root the zone's CMK is generated in a new SoftHSM2 token of this host. Each \
                zone is revoked, restored and rotated on its own. Renaming and linking across zones give EXDEV, so that mv copies.
                """)

        @Argument(help: "MOUNTPOINT/DIR", completion: .directory)
        var path: String
        @Option(name: .long, help: ArgumentHelp("URI of the CMK; may be repeated.", valueName: "uri"))
        var root: [String] = []
        @Option(name: .long, help: "any-of or all-of, with several --root.")
        var policy: InitCommand.PolicyName = .anyOf
        @OptionGroup var pace: Pace
        @Flag(name: .long, help: "Print the result as JSON.")
        var json = false

        /// What `--json` prints.
        private struct Created: Encodable {
            var path: String?
            var status: ZoneStatus
            /// Of a directory that was not empty.
            var moved: Rotation.AssignReport?
        }

        func run() throws {
            try reporting {
                ProcessHardening.apply()
                let (daemon, inside) = try Target.daemon(path)
                guard !inside.isEmpty else {
                    throw Failure(
                        .invalid, "\(path) is the root of the volume", meaning: "It is a zone already, number 0.",
                        remedy: "lethefs zone create \(path)/DIR")
                }
                let uris = root.isEmpty ? [try Self.embeddedRoot()] : root
                for uri in uris {
                    do throws(RootError) { _ = try Roots.openOrCreate(uri) } catch {
                        throw Failure(error, uri: Roots.withoutPIN(uri))
                    }
                }
                let encoded = String(decoding: try JSONEncoder().encode(uris), as: UTF8.self)
                var asked = ["path": inside, "roots": encoded, "policy": policy.rawValue]
                let place = try takeAway()
                if let (mode, uid, gid) = place {
                    asked.merge(["mode": "\(mode)", "uid": "\(uid)", "gid": "\(gid)"]) { $1 }
                } else {
                    asked["existing"] = "1"
                }
                let zone: ListedZone = try DaemonClient.ask(daemon, .zoneCreate, asked, timeoutSeconds: 3600)
                if !json {
                    FileHandle.standardOutput.write(
                        "zone \(zone.status.zone) made at \(path)\n"
                            + zone.status.cmks.map { "  CMK  \($0.uri)\n" }.joined())
                }
                let moved =
                    try place == nil ? Assign.run(daemon, inside, ["zone": "\(zone.status.zone)"], pace) : nil
                if json { return try printJSON(Created(path: zone.path, status: zone.status, moved: moved)) }
                if let moved { FileHandle.standardOutput.write(moved.text) }
            }
        }

        private static func embeddedRoot() throws -> String {
            let host = Host()
            try host.makeDirectory("")
            do {
                return try EmbeddedToken.create(
                    in: host.embeddedTokens, label: "lethefs-\("\(try InitCommand.newVolumeID())".prefix(18))")
            } catch let error as RootError {
                throw Failure(error, uri: "embedded SoftHSM2 token in \(host.embeddedTokens)")
            }
        }

        /// An empty directory makes way, by rmdir(2), so that the kernel sees to it that it is empty. What the new one shall be like; `nil`
        /// for a directory that is not empty.
        private func takeAway() throws -> (mode_t, uid_t, gid_t)? {
            var info = stat()
            guard lstat(path, &info) == 0 else {
                let mask = umask(0o022)
                umask(mask)
                return (0o777 & ~mask, geteuid(), getegid())
            }
            guard rmdir(path) == 0 else {
                let reason = linux_get_errno()
                if reason == ENOTEMPTY || reason == EEXIST { return nil }
                throw Failure(
                    .invalid, "\(path): \(String(cString: strerror(reason)))",
                    meaning: "A new zone's root is a directory, new, empty or not. Nothing was changed.",
                    remedy: "name a directory that you may change")
            }
            return (info.st_mode & 0o7777, info.st_uid, info.st_gid)
        }
    }

    /// How fast a tree goes to another zone.
    struct Pace: ParsableArguments {
        @Option(
            name: .long, help: ArgumentHelp("Re-encrypt at most so many MB (10^6 bytes) a second.", valueName: "MB/s"))
        var rate: UInt32 = 0
        @Flag(name: .long, help: "Programs go first: work a fifth of the time while they read or write.")
        var yield = false
        @Flag(name: .long, help: "Return at once; the daemon does it.")
        var background = false
    }

    struct Assign: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "assign",
            abstract: "Bring a directory, and all below it, into another zone, while programs use it.",
            discussion: """
                Headers first, then every file gets a new DEK, so that the keys of the zone it came from open nothing of it. What is \
                interrupted goes on by itself, with the next mount, or when a zone that was revoked is restored. Files with names \
                outside of the directory are refused. Copies of the lower storage from before still open under the old zone's keys: \
                see docs/ROTATION.md.
                """)

        @Argument(help: "MOUNTPOINT/DIR", completion: .directory)
        var path: String
        @Option(name: .long, help: ArgumentHelp("The zone: its number, or the path of its root.", valueName: "zone"))
        var zone: String
        @OptionGroup var pace: Pace
        @Flag(name: .long, help: "Print the result as JSON.")
        var json = false

        func run() throws {
            try reporting {
                ProcessHardening.apply()
                let (daemon, inside) = try Target.daemon(path)
                let report = try Self.run(daemon, inside, try destination(daemon), pace)
                if json { return try printJSON(report) }
                FileHandle.standardOutput.write(report.text)
            }
        }

        private func destination(_ daemon: RuntimeDirectory.Record) throws -> [String: String] {
            if UInt32(zone) != nil { return ["zone": zone] }
            let (other, root) = try Target.daemon(zone)
            guard other.pid == daemon.pid else {
                throw Failure(
                    .invalid, "\(zone) lies in another volume", meaning: "Nothing was changed.",
                    remedy: "mv copies between volumes")
            }
            return ["root": root]
        }

        /// Has the daemon do it; a terminal sees how far it is.
        static func run(
            _ daemon: RuntimeDirectory.Record, _ inside: String, _ zone: [String: String], _ pace: Pace
        ) throws -> Rotation.AssignReport {
            let progress = ProgressLine { (try? DaemonClient.ask(daemon, .sweeps, timeoutSeconds: 5)) ?? [] }
            defer { progress.end() }
            let asked = [
                "path": inside, "rate": "\(pace.rate)", "yields": pace.yield ? "1" : "0",
                "background": pace.background ? "1" : "0",
            ].merging(zone) { $1 }
            return try DaemonClient.ask(daemon, .zoneAssign, asked, timeoutSeconds: 7 * 24 * 3600)
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list", abstract: "Show the zones of a mounted volume, and how they stand.")

        @Argument(help: "The mount point.", completion: .directory)
        var path: String
        @Flag(name: .long, help: "Print JSON.")
        var json = false

        func run() throws {
            try reporting {
                let zones: [ListedZone] = try DaemonClient.ask(try Target.daemon(path).record, .zones)
                if json { return try printJSON(zones) }
                for zone in zones {
                    let path = zone.path.map { "/" + $0 } ?? "(made on another host)"
                    FileHandle.standardOutput.write(
                        path + "\n" + StatusCommand.lines([zone.status]).map { "  \($0)\n" }.joined())
                }
            }
        }
    }
}
