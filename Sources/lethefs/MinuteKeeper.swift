import CLinux
import ControlPlane
import Logging
import Storage
import Synchronization
import VolumeEngine
import VolumeFormat

/// Stores something of a mount once a minute, when it has changed: the manifest, page trees.
final class MinuteKeeper: Sendable {
    /// How much there is to store.
    enum Demand {
        case nothing
        case some
        /// It does not wait for the minute's end.
        case much
    }

    private static let seconds = 60
    private let what: String
    private let log: Logger
    private let demand: @Sendable () -> Demand
    private let store: @Sendable () throws(VolumeError) -> Void
    private let stopped = Atomic<Bool>(false)

    /// `what` is for the log.
    init(
        _ what: String, _ log: Logger, demand: @escaping @Sendable () -> Demand,
        store: @escaping @Sendable () throws(VolumeError) -> Void
    ) {
        self.what = what
        self.log = log
        self.demand = demand
        self.store = store
    }

    func start() {
        PlainThread.detach { [self] in
            var failed = false
            while true {
                var tenths = 0
                // After a failure not before the minute is over.
                while tenths < Self.seconds * 10, !isStopped, failed || demand() != .much {
                    usleep(100_000)
                    tenths += 1
                }
                if isStopped { return }
                guard demand() != .nothing else { continue }
                do throws(VolumeError) {
                    try store()
                    failed = false
                } catch {
                    // While a zone is revoked there are no keys; it is tried again.
                    if !failed { log.warning("\(what) not stored: \(Failure(error, lower: "").what)") }
                    failed = true
                }
            }
        }
    }

    private var isStopped: Bool { stopped.load(ordering: .acquiring) }
    func stop() { stopped.store(true, ordering: .releasing) }
}

extension MinuteKeeper {
    /// Those that a mount which writes has.
    static func all(_ mount: VolumeMount, _ log: Logger) -> [MinuteKeeper] {
        let volume = mount.volume
        guard !volume.options.readOnly else { return [] }
        var keepers: [MinuteKeeper] = []
        if volume.description.features.contains(.pageTree) {
            keepers.append(
                MinuteKeeper("page trees were", log) {
                    volume.hasManyUnstoredTrees ? .much : volume.hasUnstoredTrees ? .some : .nothing
                } store: { () throws(VolumeError) in
                    do throws(Errno) { try volume.storeTrees() } catch { throw .lower(error, "storing page trees") }
                })
        }
        if let manifest = volume.manifest {
            keepers.append(
                MinuteKeeper("the manifest was", log) {
                    manifest.hasChanges ? .some : .nothing
                } store: {
                    () throws(VolumeError) in
                    try mount.storeManifest()
                })
        }
        return keepers
    }
}
