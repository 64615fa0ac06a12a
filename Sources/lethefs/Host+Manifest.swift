import CLinux
import FoundationEssentials
import VolumeEngine
import VolumeFormat

/// Where this host keeps a volume's manifest, if the operator wants one (FORMAT §11).
extension Host {
    func manifestPath(_ volume: UniqueID) -> String { "\(home)/manifests/\(volume)" }

    /// The manifest that this host remembers for a volume.
    func manifest(_ volume: UniqueID, isLearning: Bool = false) -> VolumeMount.ManifestUse? {
        readRecord(volume)?.manifest.map {
            VolumeMount.ManifestUse(path: $0, mustExist: true, isLearning: isLearning)
        }
    }

    /// The manifest of a mount: what its options say (`manifest`, `manifest=FILE`, `nomanifest`), else what this host remembers.
    func manifest(_ volume: UniqueID, _ request: MountRequest) throws -> VolumeMount.ManifestUse? {
        switch request.manifest {
        case .remembered: return manifest(volume)
        case .none: return nil
        case .at(let given):
            let path = given ?? manifestPath(volume)
            guard path.hasPrefix("/"), !Paths.isInside(path, request.lower), !Paths.isInside(path, request.mountPoint)
            else {
                throw Failure(
                    .invalid, "manifest=\(path): not an absolute path outside the volume",
                    meaning: "A manifest finds what was put back on the lower storage, so it has to lie elsewhere.",
                    remedy: "-o manifest  keeps it below \(home)")
            }
            if given == nil { try makeDirectory("manifests") }
            return VolumeMount.ManifestUse(path: path, mustExist: readRecord(volume)?.manifest == path)
        }
    }

    /// Remembers what a mount that writes was asked for.
    func remember(_ request: MountRequest, _ use: VolumeMount.ManifestUse?, _ volume: UniqueID) throws {
        guard request.manifest != .remembered, !request.readOnly, var record = readRecord(volume),
            record.manifest != use?.path
        else { return }
        record.manifest = use?.path
        try writeRecord(volume, record)
    }
}

/// What a mount's options say of a manifest.
enum ManifestChoice: Equatable {
    case remembered
    case none
    /// `nil`: below $LETHEFS_HOME.
    case at(String?)
}
