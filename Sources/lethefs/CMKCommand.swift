import ArgumentParser
import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import VolumeEngine
import VolumeFormat

struct CMKCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cmk", abstract: "Customer master keys.",
        subcommands: [Show.self, Disable.self, Enable.self, Rotate.self, Destroy.self])

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Ask the CMK's owner what it says about the key now.")

        @Argument(help: "A lower directory, a mount point, or a root URI.")
        var target: String
        @Option(name: .long, help: "The zone by its number.")
        var zone: UInt32?
        @Flag(name: .long, help: "Print JSON.")
        var json = false

        private struct Facts: Encodable {
            var uri: String
            var cmk: CMKDescription
            /// Of each zone of this host whose keyring names it.
            var zones: [Zone]
        }

        private struct Zone: Encodable {
            var zone: UInt32
            var mountPoint: String?
            var lower: String
            var history: [ZoneStatus.Entered]
        }

        func run() throws {
            try reporting {
                ProcessHardening.apply()
                var refused: [Failure] = []
                let facts = try CMKTarget.find(target, zone: zone).compactMap { found -> Facts? in
                    let zones = found.places.map {
                        Zone(
                            zone: $0.zone, mountPoint: $0.daemon?.mountPoint, lower: $0.lower,
                            history: $0.history.map(ZoneStatus.Entered.init))
                    }
                    do throws(RootError) {
                        let cmk = try found.roots.resolve(found.named)
                        return Facts(uri: cmk.uri, cmk: try cmk.describe(), zones: zones)
                    } catch { refused.append(Failure(error, uri: Roots.withoutPIN(found.named))) }
                    return nil
                }
                if json {
                    try printJSON(facts)
                } else {
                    FileHandle.standardOutput.write(facts.map(Self.text).joined(separator: "\n"))
                }
                for failure in refused.dropLast() { failure.report() }
                if let failure = refused.last { throw failure }
            }
        }

        private static func text(_ facts: Facts) -> String {
            let cmk = facts.cmk
            let lines =
                [
                    "CMK          \(cmk.label) (\(cmk.id))", "URI          \(facts.uri)", "type         \(cmk.keyType)",
                    "enabled      \(cmk.enabled ? "yes" : "no")",
                    "sensitive    \(cmk.sensitive ? "yes" : "NO")", "extractable  \(cmk.extractable ? "YES" : "no")",
                    "wraps by     \(cmk.wrapAlgorithm)",
                ] + cmk.owner.sorted { $0.key < $1.key }.map { "\($0.key.padding(to: 12)) \($0.value)" }
            let states = facts.zones.flatMap { zone in
                ["zone \(zone.zone)       \(zone.mountPoint ?? zone.lower)"]
                    + zone.history.map { "  \($0.at.formatted(.iso8601))  \($0.state)" }
            }
            return (lines + states).joined(separator: "\n") + "\n"
        }
    }
}

extension String {
    func padding(to count: Int) -> String {
        self + String(repeating: " ", count: max(0, count - self.count))
    }
}
