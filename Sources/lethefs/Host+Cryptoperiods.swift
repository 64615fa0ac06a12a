import CLinux
import ControlPlane
import FoundationEssentials
import VolumeFormat

/// What this host remembers of a volume's cryptoperiods, in `$LETHEFS_HOME/cryptoperiods`: what was counted, told and done, so that a new
/// mount neither counts nor tells it all again; and the policy's revision, which the lower storage cannot take back. Lost, it costs one count.
struct CryptoperiodMemory: Codable, Equatable {
    struct Zone: Codable, Equatable {
        var ages: DEKAges?
        /// When what was told last, in seconds since 1970: by key and standing.
        var told: [String: UInt64] = [:]
        /// When a rotation of that key was begun last.
        var begun: [String: UInt64] = [:]
        /// A rotation that goes on in the background, to be recorded once it is done: by key, what the record says.
        var awaited: [String: [String: String]] = [:]
    }

    /// The highest revision of the policy that was seen here.
    var revision: UInt64 = 0
    /// The latest time that was believed.
    var latest: UInt64 = 0
    /// By number.
    var zones: [String: Zone] = [:]
}

extension Host {
    private func cryptoperiodPath(_ volume: UniqueID) -> String { "\(home)/cryptoperiods/\(volume).json" }

    func readCryptoperiods(_ volume: UniqueID) -> CryptoperiodMemory {
        guard let data = FileManager.default.contents(atPath: cryptoperiodPath(volume)),
            let memory = try? JSONDecoder().decode(CryptoperiodMemory.self, from: data)
        else { return CryptoperiodMemory() }
        return memory
    }

    func writeCryptoperiods(_ volume: UniqueID, _ memory: CryptoperiodMemory) throws {
        try makeDirectory("cryptoperiods")
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let path = cryptoperiodPath(volume)
        do {
            try encoder.encode(memory).write(to: URL(filePath: path), options: .atomic)
            _ = chmod(path, 0o600)
        } catch { throw Failure(.storage, "writing \(path): \(error)") }
    }
}
