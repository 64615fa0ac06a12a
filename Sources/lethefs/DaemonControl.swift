import CLinux
import ControlPlane
import FoundationEssentials
import Logging
import VolumeEngine

/// The daemon's record in the runtime directory, and its answers over the socket.
final class DaemonControl: Sendable {
    /// One verb: works with the daemon's services and the request's arguments, and gives what is encoded as the result.
    typealias Handler = @Sendable (DaemonServices, [String: String]) throws -> any Encodable & Sendable

    /// Each family of verbs adds its own in a file of its own.
    private static let handlers: [ControlVerb: Handler] = {
        var all: [ControlVerb: Handler] = [.status: { services, _ in services.status() }]
        for family in [
            auditHandlers, checkHandlers, cmkHandlers, zoneHandlers, DaemonServices.rotationVerbs,
            DaemonServices.policyVerbs,
        ] {
            all.merge(family) { $1 }
        }
        return all
    }()

    private let host: Host
    private let record: RuntimeDirectory.Record
    private let server: ControlServer?

    init(_ services: DaemonServices) {
        host = services.host
        record = RuntimeDirectory.Record(
            pid: getpid(), volume: "\(services.mount.volume.description.volume)", lower: services.request.lower,
            mountPoint: services.request.mountPoint, log: services.logPath)
        guard host.runtime.prepare() else {
            server = nil
            return
        }
        server = ControlServer(path: host.runtime.socketPath(pid: getpid())) { Self.answer($0, services) }
    }

    private static func answer(_ request: ControlRequest, _ services: DaemonServices) -> Data {
        let encoder = JSONEncoder()
        encoder.dateEncodingStrategy = .iso8601
        func encoded(_ value: some Encodable) -> Data { (try? encoder.encode(value)) ?? Data() }
        guard let handler = handlers[request.verb] else {
            let failure = Failure(
                .invalid, "the daemon does not know \"\(request.verb.rawValue)\"",
                meaning: "It is of another version than this command.", remedy: "unmount and mount again")
            return encoded(FailureAnswer(failure: failure))
        }
        do {
            let result = encoded(try handler(services, request.arguments))
            return Data("{\"result\":".utf8) + result + Data("}".utf8)
        } catch let failure as Failure {
            return encoded(FailureAnswer(failure: failure))
        } catch let error as VolumeError {
            return encoded(FailureAnswer(failure: Failure(error, lower: services.request.lower)))
        } catch { return encoded(FailureAnswer(failure: Failure(.internalError, "\(error)"))) }
    }

    private struct FailureAnswer: Encodable {
        var failure: Failure
    }

    func start(_ log: Logger) {
        guard let server, server.start() else {
            log.warning(
                "no control socket in \(host.runtime.path): status and unmount know this mount only by the kernel")
            return
        }
        do { try host.runtime.write(record) } catch { log.warning("no record in \(host.runtime.path): \(error)") }
    }

    func stop() {
        server?.stop()
        host.runtime.remove(pid: getpid())
    }
}

extension DaemonServices {
    func status() -> MountStatus {
        let memory = ProcessMemory.read()
        let volume = mount.volume
        let (transport, obstacle) = session.transport
        var status = MountStatus(
            volume: "\(volume.description.volume)", lower: request.lower, mountPoint: request.mountPoint,
            pid: getpid(), mountedAt: startedAt, readOnly: request.readOnly, transport: transport.rawValue,
            epoch: volume.epoch,
            afterCrash: volume.isAfterCrash, knownInodes: volume.knownInodes, residentKiB: memory["VmRSS"] ?? 0,
            lockedKiB: memory["VmLck"] ?? 0, damageEvents: damage.count, log: logPath, guardian: guardian.pid,
            audit: audit?.status, zones: mount.zoneKeyrings.map { ZoneStatus($0, keepers[$0.zone]?.condition) })
        if let obstacle {
            status.transportNote = [obstacle.words, obstacle.remedy].compactMap { $0 }.joined(separator: "; ")
        }
        status.integrity = volume.description.features.integrityNames
        status.rolledBackFrom = rolledBackFrom
        status.cryptoperiods = cryptoperiods.reviews()
        status.policyRevertedFrom = cryptoperiods.revertedFrom
        return status
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
