import ControlPlane
import VolumeEngine
import VolumeFormat

/// Rotations that the volume's policy asks for. They are noted in the keyring, and done by `Rotation.keep`.
extension Rotation {
    /// Notes the re-encryption of the files whose DEKs were made at `cutoff` (seconds since 1970) or before. Programs go first.
    func beginOverdue(_ zone: ZoneID, cutoff: UInt64) throws {
        try reporting {
            try sweeps.run(zone, .keys) { _ in
                _ = try mount.beginReencryption(
                    zone, scope: nil, rate: 0, flags: [.yields], editing: editing, cutoff: cutoff)
            }
        }
        audit?.append(.reencryptionStarted, zone: zone, ["scope": "overdue"])
    }

    /// Notes a new metadata key for links, and for attributes of what has no header.
    func renewMetadata(_ zone: ZoneID) throws {
        try reporting { try sweeps.run(zone, .keys) { _ in try mount.beginMetadataRenewal(zone, editing: editing) } }
    }

    /// How old the DEKs of a zone's files are. On one thread, and behind programs.
    func countAges(_ zone: ZoneID, period: UInt64) throws -> DEKAges {
        let began = Volume.now
        return try reporting {
            try sweeps.run(zone, .coverage) { control in
                control.setYields(true)
                let coverage = try mount.coverage(
                    zone, control: control, threads: 1, ageStep: DEKAges.step(of: period))
                guard !control.isCancelled else { throw VolumeError.lower(.interrupted, "counting") }
                return DEKAges(counted: began, coverage)
            }
        }
    }
}
