import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import KeyProviderPKCS11
import VolumeFormat

/// What this host keeps: trusted root URIs by volume, embedded tokens, logs.
struct Host {
    let home: String
    let runtime: RuntimeDirectory

    init() {
        let environment = ProcessInfo.processInfo.environment
        if let home = environment["LETHEFS_HOME"], !home.isEmpty {
            self.home = home
            runtime = RuntimeDirectory(path: home + "/run")
        } else if geteuid() == 0 {
            home = "/var/lib/lethefs"
            runtime = RuntimeDirectory(path: "/run/lethefs")
        } else {
            let user = environment["HOME"] ?? "/"
            home = (environment["XDG_DATA_HOME"] ?? user + "/.local/share") + "/lethefs"
            runtime = RuntimeDirectory(path: environment["XDG_RUNTIME_DIR"].map { $0 + "/lethefs" } ?? home + "/run")
        }
    }

    var embeddedTokens: String { home + "/softhsm" }
    func logPath(_ volume: UniqueID) -> String { "\(home)/log/\(volume).log" }

    /// A directory below home, private to its owner.
    func makeDirectory(_ name: String) throws {
        let path = home + "/" + name
        do {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw Failure(.storage, "making \(path): \(error)", remedy: "set LETHEFS_HOME to a directory of your own")
        }
    }

    /// The root URIs that this host trusts for a volume. The volume itself names its CMKs too, but whoever can write to the
    /// lower storage could make it name a module of his own, so those names are never loaded by themselves.
    struct VolumeRecord: Codable {
        var roots: [String]
        /// By a CMK's name in the keyrings, the one of `roots` that it was found by, where that does not mean it by itself.
        var names: [String: String]?
        /// Zones by the path they were made at, for commands that name them by it.
        var zones: [String: UInt32]?
        /// The highest epoch that this host has seen.
        var epoch: UInt64?
        /// The manifest that mounts keep, and find files by that were put back to an earlier time.
        var manifest: String?
    }

    private func recordPath(_ volume: UniqueID) -> String { "\(home)/volumes/\(volume).json" }

    func readRecord(_ volume: UniqueID) -> VolumeRecord? {
        guard let data = FileManager.default.contents(atPath: recordPath(volume)) else { return nil }
        return try? JSONDecoder().decode(VolumeRecord.self, from: data)
    }

    func writeRecord(_ volume: UniqueID, _ record: VolumeRecord) throws {
        try makeDirectory("volumes")
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let path = recordPath(volume)
        do {
            try encoder.encode(record).write(to: URL(filePath: path), options: .atomic)
            _ = chmod(path, 0o600)
        } catch { throw Failure(.storage, "writing \(path): \(error)") }
    }
}
