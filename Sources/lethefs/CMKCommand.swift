import ArgumentParser
import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import VolumeEngine
import VolumeFormat

struct CMKCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cmk", abstract: "Customer master keys.", subcommands: [Show.self])

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Ask the CMK's owner what it says about the key now.")

        @Argument(help: "A lower directory, a mount point, or a root URI.")
        var target: String
        @Flag(name: .long, help: "Print JSON.")
        var json = false

        private struct Facts: Encodable {
            var uri: String
            var cmk: CMKDescription
        }

        func run() throws {
            try reporting {
                ProcessHardening.apply()
                let facts = try keys().map { (named, roots) -> Facts in
                    do {
                        let cmk = try roots.resolve(named)
                        return Facts(uri: cmk.uri, cmk: try cmk.describe())
                    } catch let error as RootError { throw Failure(error, uri: Roots.withoutPIN(named)) }
                }
                if json { return try printJSON(facts) }
                FileHandle.standardOutput.write(facts.map(Self.text).joined(separator: "\n"))
            }
        }

        /// The CMKs meant, each with the roots that may serve it.
        private func keys() throws -> [(String, Roots)] {
            if target.contains(":"), access(target, F_OK) != 0 {
                return [(target, Roots(trusted: [target]))]
            }
            let host = Host()
            var lower = target
            if let mounted = try? MountTable.find(target) {
                lower = host.runtime.records().last { $0.mountPoint == mounted }?.lower ?? target
            }
            lower = try Paths.absolute(lower)
            do {
                let files = try VolumeFiles(lower: lower)
                let volume = try files.readDescription().value.volume
                let keyring = try files.keyring(.root)
                guard let record = host.readRecord(volume) else {
                    throw Failure(
                        .keyNotFound, "this host does not know the CMK of \(lower)", remedy: "lethefs cmk show URI")
                }
                return keyring.cmks.map { ($0.uri, Roots(trusted: record.roots)) }
            } catch let error as VolumeError { throw Failure(error, lower: lower) }
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
            return lines.joined(separator: "\n") + "\n"
        }
    }
}

extension String {
    func padding(to count: Int) -> String {
        self + String(repeating: " ", count: max(0, count - self.count))
    }
}
