import FoundationEssentials
import KeyManagement
import VolumeEngine
import VolumeFormat

/// A volume that a command opens for itself, while nobody has it mounted.
struct OfflineVolume {
    let mount: VolumeMount
    let roots: TrustedRoots
    let host: Host
    let lower: String

    /// Takes the volume's lock, so that no daemon mounts it meanwhile.
    static func open(_ lower: String, readOnly: Bool = false, roots given: [String] = []) throws -> OfflineVolume {
        let host = Host()
        do {
            let files = try VolumeFiles(lower: lower)
            let volume = try files.readDescription().value.volume
            guard let trusted = try Roots.of(files, given: given, host.readRecord(volume)) else {
                throw Failure(
                    .keyNotFound, "this host does not know the CMK of \(lower)",
                    remedy: "lethefs mount \(lower) MOUNTPOINT --root URI  once")
            }
            let roots = TrustedRoots(trusted)
            var options = Volume.Options()
            options.readOnly = readOnly
            let mount = try VolumeMount(
                lower: lower, options: options,
                unlocking: KeyringUnlocking { (uri) throws(RootError) in try roots.current.resolve(uri) },
                manifest: host.manifest(volume)
            ) { damage in
                FileHandle.standardError.write(
                    "lethefs: damaged \(damage.object.rawValue), lower inode \(damage.inode): \(damage.reason)\n")
            }
            return OfflineVolume(mount: mount, roots: roots, host: host, lower: lower)
        } catch let error as VolumeError { throw Failure(error, lower: lower) }
    }

    func close() throws {
        do { try mount.close() } catch { throw Failure(error, lower: lower) }
    }
}
