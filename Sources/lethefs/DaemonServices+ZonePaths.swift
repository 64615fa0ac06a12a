import ControlPlane
import Storage
import Synchronization
import VolumeEngine
import VolumeFormat

/// Which zone a path means. What is there tells: zones' roots are renamed and removed as other directories are, and zones come from other hosts.
/// Where this host knows zones to have been made is asked only where a closed zone keeps from looking.
extension DaemonServices {
    /// Longer than that no command that takes keys away waits for the lower storage.
    private static let lookUpSeconds = 5.0
    private static let listSeconds = 2.0

    /// The zone that `zone` numbers, or to which `path` leads.
    func zone(_ arguments: [String: String]) throws -> ZoneID {
        if let text = arguments["zone"] {
            guard let number = UInt32(text) else { throw Failure(.invalid, "\"\(text)\" is no zone's number") }
            return ZoneID(rawValue: number)
        }
        let path = arguments["path"] ?? ""
        if path.isEmpty { return .root }
        switch Deadline.run(seconds: Self.lookUpSeconds, { [self] in lookUp(path) }) {
        case .zone(let zone): return zone
        case .link:
            throw untold(path, "it is a symbolic link", "name what it leads to")
        case .failed(let error):
            if error.isClosedZone, let known = knownZones[path] { return ZoneID(rawValue: known) }
            throw untold(path, error.message)
        case nil: throw untold(path, "the lower storage does not answer")
        }
    }

    private func untold(_ path: String, _ why: String, _ remedy: String? = nil) -> Failure {
        Failure(
            .invalid, "\(request.mountPoint)/\(path): \(why)", meaning: "Its zone cannot be told.",
            remedy: remedy
                ?? "name the zone by its number: --zone N, as lethefs zone list \(request.mountPoint) shows it")
    }

    private enum Found { case zone(ZoneID), link, failed(Errno) }

    private func lookUp(_ path: String) -> Found {
        do throws(Errno) {
            let inode = try mount.volume.resolve(path)
            defer { mount.volume.release([inode]) }
            return inode.kind == .symbolicLink ? .link : .zone(try mount.volume.zone(of: inode))
        } catch { return .failed(error) }
    }

    /// Paths at which this host has made zones, or assigned directories to them.
    private var knownZones: [String: UInt32] { host.readRecord(mount.volume.description.volume)?.zones ?? [:] }

    func listedZones() -> [ListedZone] {
        let known = knownZones
        // A lower storage that hangs keeps nobody from the list: what it has not told by then is as it was noted.
        let gone = Gone()
        _ = Deadline.run(seconds: Self.listSeconds) { [self] in
            for (path, zone) in known where !isStill(zone, at: path) { gone.paths.withLock { _ = $0.insert(path) } }
        }
        let others = gone.paths.withLock { $0 }
        let paths = known.filter { !others.contains($0.key) }
        return mount.zoneKeyrings.map { keyring in
            // Several trees may have been assigned to it: the one that it was made for, mostly.
            let known = paths.filter { $0.value == keyring.zone.rawValue }.keys.min { ($0.count, $0) < ($1.count, $1) }
            let path = keyring.zone == .root ? "" : known
            return ListedZone(path: path, status: ZoneStatus(keyring, keepers[keyring.zone]?.condition))
        }
    }

    /// Paths at which something else is there now.
    private final class Gone: Sendable {
        let paths = Mutex<Set<String>>([])
    }

    /// False where something else is there now.
    private func isStill(_ zone: UInt32, at path: String) -> Bool {
        switch lookUp(path) {
        case .zone(let found): found.rawValue == zone
        case .link: false
        case .failed(let error): error.isClosedZone
        }
    }
}

extension Errno {
    fileprivate var isClosedZone: Bool { self == .keyRevoked || self == .noKey }
}
