import ControlPlane
import FoundationEssentials

/// What the LOWER|MOUNTPOINT argument of a command means.
enum Target {
    /// A mount of this user's, and the plaintext path within it ("" for its root).
    case mounted(RuntimeDirectory.Record, inside: String)
    /// A lower directory that no daemon of this host has mounted.
    case lower(String)

    /// Resolves a path: a mount point, something below one, or a lower directory (mounted or not).
    init(_ path: String) throws {
        let records = Host().runtime.records()
        if let (mountPoint, inside) = try MountTable.containing(path) {
            guard let record = records.last(where: { $0.mountPoint == mountPoint }) else {
                throw Failure(
                    .notMounted, "the daemon of \(mountPoint) does not answer",
                    meaning: "It belongs to another user, or has died.",
                    remedy: "fusermount3 -u \(mountPoint)  if it has died, then mount again")
            }
            self = .mounted(record, inside: inside)
            return
        }
        let lower = try Paths.absolute(path)
        if let record = records.last(where: { $0.lower == lower }) {
            self = .mounted(record, inside: "")
        } else {
            self = .lower(lower)
        }
    }

    /// The daemon, for what only a mounted volume can do.
    static func daemon(_ path: String) throws -> (record: RuntimeDirectory.Record, inside: String) {
        switch try Target(path) {
        case .mounted(let record, let inside): return (record, inside)
        case .lower(let lower):
            throw Failure(
                .notMounted, "\(lower) is not mounted on this host", meaning: "This needs a running daemon.",
                remedy: "lethefs mount \(lower) MOUNTPOINT")
        }
    }
}

/// A daemon's answer: what was asked for, or why not.
struct DaemonAnswer<Result: Codable>: Codable {
    var failure: Failure?
    var result: Result?
}

/// For verbs that give nothing but their outcome.
struct Done: Codable {}

enum DaemonClient {
    /// Asks a daemon and waits for its answer; a failure that it tells of is thrown.
    static func ask<Result: Codable>(
        _ record: RuntimeDirectory.Record, _ verb: ControlVerb, _ arguments: [String: String] = [:],
        timeoutSeconds: Int = 600, as _: Result.Type = Result.self
    ) throws -> Result {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        let socket = Host().runtime.socketPath(pid: record.pid)
        let data = ControlClient.ask(socket, ControlRequest(verb, arguments), timeoutSeconds: timeoutSeconds)
        guard let data, let answer = try? decoder.decode(DaemonAnswer<Result>.self, from: data) else {
            throw Failure(
                .notMounted, "the daemon of \(record.mountPoint) (pid \(record.pid)) does not answer",
                remedy: "the end of \(record.log ?? "its log") may say why")
        }
        if let failure = answer.failure { throw failure }
        guard let result = answer.result else { throw Failure(.internalError, "the daemon's answer is empty") }
        return result
    }
}
