import ArgumentParser
import CLinux
import FoundationEssentials
import FuseServer
import KeyManagement
import VolumeEngine

struct MountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mount",
        abstract: "Mount a volume; returns when the mount answers.",
        discussion: """
            Options for -o, separated by commas: ro, allow_other (other users may use the mount; a plain user needs \
            user_allow_other in /etc/fuse.conf), transport=auto, dev-fuse or io_uring, and mount(8)'s nosuid, nodev, noexec, noatime, with their opposites, sync \
            and dirsync. nosuid and nodev hold unless their opposites are given.

            probe=SECONDS and lease=SECONDS: how often the CMK's owner is asked, and how long the keys may be used since it last said \
            yes. Default: 1 and 5 for a token in this machine, 10 and 30 for others.

            manifest or manifest=FILE keeps a list of what each file's header had come to, outside the lower directory: an older \
            file put back in its place is refused then. This host remembers it for the volume; nomanifest ends it.

            Which CMK opens the volume is what this host remembers of `lethefs init` or of an earlier --root; what the lower \
            directory itself names is not trusted.

            The daemon's log is below $LETHEFS_HOME/log; `lethefs status` names it.
            """)

    @Argument(help: "The lower directory.", completion: .directory)
    var lower: String
    @Argument(help: "An empty directory outside it.", completion: .directory)
    var mountPoint: String
    @Option(name: .customShort("o"), help: ArgumentHelp("Mount options.", valueName: "opt,…"))
    var options: [String] = []
    @Option(
        name: .long, help: ArgumentHelp("Trust this CMK URI for the volume; remembered on this host.", valueName: "uri")
    )
    var root: [String] = []
    @Flag(name: .long, help: "Stay in the foreground (for service managers); SIGTERM unmounts.")
    var foreground = false
    /// Set by this command for the daemon it starts.
    @Option(name: .long, help: .hidden)
    var readyFD: Int32?

    func run() throws {
        try reporting {
            try DeadMount.clear(mountPoint)
            let request = try MountRequest(
                lower: Paths.absolute(lower), mountPoint: Paths.absolute(mountPoint), options: options, roots: root)
            try Paths.checkMountPoint(request.mountPoint, lower: request.lower)
            try request.transport.check()
            if foreground {
                try Daemon(request, readyFD: readyFD).run()
            } else {
                try DaemonStart.start(request)
            }
        }
    }
}

/// A mount as asked for, checked.
struct MountRequest {
    let lower: String
    let mountPoint: String
    let roots: [String]
    let rawOptions: [String]
    private(set) var readOnly = false
    private(set) var allowOther = false
    private(set) var extra: [String] = []
    private(set) var transport = TransportChoice.auto
    /// Seconds; `nil` leaves it to what the CMK's owner is.
    private(set) var probeSeconds: Double?
    private(set) var leaseSeconds: Double?
    private(set) var manifest = ManifestChoice.remembered

    /// Options that mount(8) knows and that are passed on.
    private static let passedOn: Set<String> = [
        "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "dirsync", "sync",
    ]
    /// What /etc/fstab and mount(8) add for themselves.
    private static let ignored: Set<String> = [
        "rw", "defaults", "auto", "noauto", "user", "nouser", "users", "group", "owner", "_netdev", "nofail",
        "relatime",
        "async",
    ]

    init(lower: String, mountPoint: String, options: [String], roots: [String]) throws {
        self.lower = lower
        self.mountPoint = mountPoint
        self.roots = roots
        rawOptions = options
        for option in options.flatMap({ $0.split(separator: ",").map(String.init) }) {
            switch option {
            case "ro": readOnly = true
            case "allow_other": allowOther = true
            case "default_permissions": break
            case _ where Self.passedOn.contains(option): extra.append(option)
            case _ where option.hasPrefix("transport="): transport = try TransportChoice(option: option)
            case "manifest": manifest = .at(nil)
            case "nomanifest": manifest = .none
            case _ where option.hasPrefix("manifest="): manifest = .at(String(option.dropFirst("manifest=".count)))
            case _ where option.hasPrefix("probe="): probeSeconds = try Self.seconds(option)
            case _ where option.hasPrefix("lease="): leaseSeconds = try Self.seconds(option)
            case _ where Self.ignored.contains(option) || option.hasPrefix("x-") || option.hasPrefix("comment="): break
            default:
                throw Failure(
                    .invalid, "unknown mount option \"\(option)\"", remedy: "lethefs mount --help  lists them")
            }
        }
    }

    /// The value of `probe=` or `lease=`.
    private static func seconds(_ option: String) throws -> Double {
        guard let value = Double(option.drop { $0 != "=" }.dropFirst()), (0.1...86_400).contains(value) else {
            throw Failure(
                .invalid, "\(option): not a number of seconds from 0.1 to 86400", remedy: "-o probe=1,lease=5")
        }
        return value
    }
}
