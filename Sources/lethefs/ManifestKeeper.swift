import CLinux
import ControlPlane
import Logging
import Synchronization
import VolumeEngine

/// Stores the manifest of a mount once a minute, when something has changed.
final class ManifestKeeper: Sendable {
    private static let seconds = 60
    private let mount: VolumeMount
    private let log: Logger
    private let stopped = Atomic<Bool>(false)

    init(_ mount: VolumeMount, _ log: Logger) {
        self.mount = mount
        self.log = log
    }

    func start() {
        guard let manifest = mount.volume.manifest, !mount.volume.options.readOnly else { return }
        ControlPlane.Thread.detach { [self] in
            var failed = false
            while true {
                for _ in 0..<Self.seconds * 10 where !stopped.load(ordering: .acquiring) { usleep(100_000) }
                if stopped.load(ordering: .acquiring) { return }
                guard manifest.hasChanges else { continue }
                do throws(VolumeError) {
                    try mount.storeManifest()
                    failed = false
                } catch {
                    // While the root zone is revoked there are no keys; it is tried again.
                    if !failed { log.warning("the manifest was not stored: \(Failure(error, lower: "").what)") }
                    failed = true
                }
            }
        }
    }

    func stop() { stopped.store(true, ordering: .releasing) }
}
