import CLinux
import KeyManagement
import Storage
import VolumeFormat

extension VolumeFiles {
    /// The sealed files of the audit log, brought under the active KEK: before the old one is retired, also where no daemon writes
    /// the log. Not authentic ones stay as they are, to be found. A process that writes the log does it again by itself.
    func resealAudit(_ keys: ZoneKeys) {
        guard let audit = try? Lower.open(directory, "audit", flags: O_RDONLY | O_DIRECTORY) else { return }
        for name in ["key", "head"] {
            guard let bytes = try? AtomicFile.read(audit, name, limit: 1 << 20),
                let sealed = try? SealedFile(parsing: bytes, of: "sealed file of the audit log"),
                sealed.kekVersion != keys.activeKEK.version,
                (try? Self.authenticate(sealed, keys, name)) != nil, let renewed = try? Self.seal(sealed.body, keys)
            else { continue }
            try? AtomicFile.replace(audit, name, with: renewed)
        }
    }
}
