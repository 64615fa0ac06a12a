import ArgumentParser
import CLinux
import FoundationEssentials
import FuseServer

/// The guardian process; the daemon starts it (docs/ARCHITECTURE.md, "The guardian").
struct GuardianCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "guardian", abstract: "Watches over a daemon; started by it.", shouldDisplay: false)

    @Option(help: .hidden)
    var daemon: Int32
    @Option(help: .hidden)
    var connection: UInt32?
    @Argument(help: .hidden)
    var mountPoint: String

    func run() throws {
        ProcessHardening.apply()
        let duty = GuardianDuty(daemon: daemon, mountPoint: mountPoint, connection: connection) { line in
            FileHandle.standardError.write("\(Date.now.formatted(.iso8601)) notice \(line)\n")
        }
        guard duty.run() else {
            throw Failure(
                .invalid, "guardian is started by the daemon, not by hand", meaning: "Nothing was done.",
                remedy: "lethefs mount LOWER MOUNTPOINT")
        }
    }
}
