import CLinux
import ControlPlane
import FoundationEssentials
import Logging
import VolumeEngine

/// The daemon's record in the runtime directory, and its answers over the socket.
final class DaemonControl: Sendable {
    private let host: Host
    private let record: RuntimeDirectory.Record
    private let server: ControlServer?

    init(mount: VolumeMount, request: MountRequest, host: Host, damage: DamageLog, logPath: String) {
        self.host = host
        let volume = "\(mount.volume.description.volume)"
        record = RuntimeDirectory.Record(
            pid: getpid(), volume: volume, lower: request.lower, mountPoint: request.mountPoint, log: logPath)
        let start = Date.now
        guard host.runtime.prepare() else {
            server = nil
            return
        }
        server = ControlServer(path: host.runtime.socketPath(pid: getpid())) { message in
            switch message.verb {
            case .status:
                let memory = ProcessMemory.read()
                let status = MountStatus(
                    volume: volume, lower: request.lower, mountPoint: request.mountPoint, pid: getpid(),
                    mountedAt: start,
                    readOnly: request.readOnly, transport: "dev-fuse", epoch: mount.volume.epoch,
                    afterCrash: mount.volume.isAfterCrash, knownInodes: mount.volume.knownInodes,
                    residentKiB: memory["VmRSS"] ?? 0, lockedKiB: memory["VmLck"] ?? 0, damageEvents: damage.count,
                    log: logPath, zones: [ZoneStatus(mount.keyring)])
                let encoder = JSONEncoder()
                encoder.dateEncodingStrategy = .iso8601
                return (try? encoder.encode(status)) ?? Data()
            }
        }
    }

    func start(_ log: Logger) {
        guard let server else {
            log.warning(
                "no control socket in \(host.runtime.path): status and unmount know this mount only by the kernel")
            return
        }
        do { try host.runtime.write(record) } catch { log.warning("no record in \(host.runtime.path): \(error)") }
        server.start()
    }

    func stop() {
        server?.stop()
        host.runtime.remove(pid: getpid())
    }
}

/// Figures of /proc/self/status, in KiB.
enum ProcessMemory {
    static func read() -> [String: Int] {
        guard let data = FileManager.default.contents(atPath: "/proc/self/status") else { return [:] }
        var figures: [String: Int] = [:]
        for line in String(decoding: data, as: UTF8.self).split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2, let value = parts[1].split(whereSeparator: { $0 == " " || $0 == "\t" }).first else {
                continue
            }
            figures[String(parts[0])] = Int(value)
        }
        return figures
    }
}
