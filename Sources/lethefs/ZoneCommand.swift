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
        subcommands: [Create.self, List.self])

    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create",
            abstract: "Make a directory of a mounted volume the root of a new zone.",
            discussion: """
                The directory is new, or empty. Without --root the zone's CMK is generated in a new SoftHSM2 token of this host. Each \
                zone is revoked, restored and rotated on its own. Renaming and linking across zones give EXDEV, so that mv copies.
                """)

        @Argument(help: "MOUNTPOINT/DIR", completion: .directory)
        var path: String
        @Option(name: .long, help: ArgumentHelp("URI of the CMK; may be repeated.", valueName: "uri"))
        var root: [String] = []
        @Option(name: .long, help: "any-of or all-of, with several --root.")
        var policy: InitCommand.PolicyName = .anyOf
        @Flag(name: .long, help: "Print the result as JSON.")
        var json = false

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
                let (mode, uid, gid) = try takeAway()
                let encoded = String(decoding: try JSONEncoder().encode(uris), as: UTF8.self)
                let zone: ListedZone = try DaemonClient.ask(
                    daemon, .zoneCreate,
                    [
                        "path": inside, "roots": encoded, "policy": policy.rawValue, "mode": "\(mode)",
                        "uid": "\(uid)", "gid": "\(gid)",
                    ])
                if json { return try printJSON(zone) }
                FileHandle.standardOutput.write(
                    "zone \(zone.status.zone) made at \(path)\n"
                        + zone.status.cmks.map { "  CMK  \($0.uri)\n" }.joined())
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

        /// An empty directory makes way, by rmdir(2), so that the kernel sees to it that it is empty. What the new one shall be like.
        private func takeAway() throws -> (mode_t, uid_t, gid_t) {
            var info = stat()
            guard lstat(path, &info) == 0 else {
                let mask = umask(0o022)
                umask(mask)
                return (0o777 & ~mask, geteuid(), getegid())
            }
            guard rmdir(path) == 0 else {
                let reason = linux_get_errno()
                throw Failure(
                    .invalid, "\(path): \(String(cString: strerror(reason)))",
                    meaning: "A new zone begins with a new or an empty directory. Nothing was changed.",
                    remedy: "make the zone elsewhere, and mv the files there: they are encrypted anew on the way")
            }
            return (info.st_mode & 0o7777, info.st_uid, info.st_gid)
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
