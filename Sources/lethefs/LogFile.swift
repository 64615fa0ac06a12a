import CLinux
import ControlPlane
import FoundationEssentials
import Logging
import Synchronization
import VolumeEngine

/// The daemon's log: lines with time and level, appended to a file of mode 0600.
final class LogFile: Sendable {
    let descriptor: Int32

    init?(path: String) {
        descriptor = linux_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { return nil }
    }

    func write(_ line: String) { FileHandle(descriptor: descriptor).write(line) }
}

/// swift-log's end of it.
struct LogFileHandler: LogHandler {
    let file: LogFile
    let alsoStandardError: Bool
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level = .info

    init(file: LogFile, alsoStandardError: Bool) {
        self.file = file
        self.alsoStandardError = alsoStandardError
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let line = "\(Date.now.formatted(.iso8601)) \(event.level) \(event.message)\n"
        file.write(line)
        if alsoStandardError { FileHandle.standardError.write(line) }
    }
}

/// Damage that programs meet: counted, and logged, though not faster than a disk full of damage could fill the log.
final class DamageLog: Sendable {
    private static let linesAMinute = 60
    private let log: Logger
    private let state = Mutex<(count: Int, minute: Int, lines: Int)>((0, 0, 0))

    /// Where summaries go. Leaf lock.
    private let audit = Mutex<AuditLog?>(nil)

    init(_ log: Logger) { self.log = log }

    /// Has summaries written to the audit log from now on.
    func report(to audit: AuditLog?) { self.audit.withLock { $0 = audit } }

    var count: Int { state.withLock { $0.count } }

    func note(_ damage: Damage) {
        audit.withLock { $0 }?.count(.damageMet, damage.object.fieldName, every: 60, urgent: true)
        let minute = time(nil) / 60
        let shown = state.withLock { state in
            state.count += 1
            if state.minute != minute { (state.minute, state.lines) = (minute, 0) }
            state.lines += 1
            return state.lines <= Self.linesAMinute
        }
        guard shown else { return }
        let page = damage.page.map { ", page \($0)" } ?? ""
        log.error("damaged \(damage.object.rawValue): lower inode \(damage.inode)\(page): \(damage.reason)")
    }
}

extension Damage.Object {
    /// The name as a field of an audit record.
    fileprivate var fieldName: String { String(rawValue.map { $0 == " " ? "-" : $0 }) }
}
