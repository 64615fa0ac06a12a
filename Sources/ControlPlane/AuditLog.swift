import CLinux
import Ciphers
import KeyManagement
import Storage
import Synchronization
import VolumeFormat

/// The volume's audit log: an append-only file of hash-chained records (AUDIT.md).
///
/// A record is on the lower storage before `append` returns. What cannot be written (a full disk) waits in memory and is tried
/// again; no caller is held up by it. Appending writes and flushes: no caller holds a lock of the engine, or serves a request.
///
/// Lock order: `checkpointing`, then `state`, then `queue`, `signer`, `shown` and `counters` (leaves). `state` is held over lower I/O, never over a
/// call to a token; `checkpointing` is held over one, and only those who want a checkpoint wait for it.
package final class AuditLog: Sendable {
    /// What others may know of the log.
    package struct Status: Codable, Sendable, Equatable {
        /// Sequence number of the last record.
        package var records: UInt64
        /// Records behind the last checkpoint.
        package var sinceCheckpoint: UInt64
        /// The last checkpoint was signed.
        package var signed: Bool
        /// Writes that failed in this mount; each is tried again.
        package var failures: Int
        /// Records that wait to be written.
        package var waiting: Int
        /// Records that found no room to wait.
        package var lost: Int
    }

    /// The end of the chain, for whoever keeps it elsewhere.
    package struct Head: Sendable, Equatable {
        package var sequence: UInt64
        package var hash: [UInt8]
        /// Where in the log the record ends, its newline included; 0 where that is not known.
        package var end: UInt64
        package var keys: [[UInt8]]
        /// A record before it says that the log lacks what was remembered: it may take the place of a later one.
        package var isBehindDamage = false

        package init(sequence: UInt64, hash: [UInt8], end: UInt64, keys: [[UInt8]]) {
            self.sequence = sequence
            self.hash = hash
            self.end = end
            self.keys = keys
        }
    }

    /// What the log needs of the volume.
    package struct Options: Sendable {
        package var volume: UniqueID
        /// The root zone's keys; `nil` while it is revoked, or where there are none to be had: nothing is sealed then.
        package var keys: @Sendable () -> ZoneKeys?
        /// The volume was made with a log: where there is none, it was taken away.
        package var isExpected = false
        /// What the host remembers of the log.
        package var remembered: Head?
        /// Bytes behind what is known of the log that are read as it is opened: whoever writes the lower storage could have a mount read for hours.
        package var maximumScan: UInt64 = 256 << 20
        /// Called at each checkpoint.
        package var onCheckpoint: @Sendable (Head) -> Void

        package init(
            volume: UniqueID, keys: @escaping @Sendable () -> ZoneKeys?,
            onCheckpoint: @escaping @Sendable (Head) -> Void = { _ in }
        ) {
            self.volume = volume
            self.keys = keys
            self.onCheckpoint = onCheckpoint
        }
    }

    struct Entry: Sendable {
        var time: String
        var kind: AuditKind
        var zone: UInt32?
        var fields: [String: String]
    }

    struct State {
        let file: Descriptor
        /// Offset at which the next record goes.
        var end: UInt64
        /// A newline is due before it: bytes stand there that are no record.
        var needsNewline = false
        /// Lower length after a write that failed and could not be undone.
        var tornEnd: UInt64?
        var isFlushed = true
        var isClosed = false
        var sequence: UInt64
        var hash: [UInt8]
        var keys: [AuditKeyList.Key]
        var sinceCheckpoint: UInt64 = 0
        var lastCheckpoint = MonotonicTime.now
        var signed = false
        var failures = 0
        /// KEK version under which the key list is sealed; `nil` while it is not.
        var sealedUnder: KeyVersion?
    }

    /// Records on their way.
    struct Queue {
        var waiting: [Entry] = []
        var lost = 0
        /// Of `lost`, those that no record tells of yet.
        var untold = 0
    }

    /// Records that may wait for the lower storage.
    static let maximumWaiting = 1024
    /// A checkpoint is due after so many records, or so many seconds after one.
    static let checkpointRecords: UInt64 = 64
    static let checkpointSeconds: Int = 600

    let options: Options
    let files: AuditFiles
    let state: Mutex<State>
    let queue = Mutex(Queue())
    let checkpointing = Mutex<Void>(())
    let signer: Mutex<(any Signer)?>
    let counters = Mutex<[AuditCounter]>([])
    let stopped = Atomic<Bool>(false)
    // What `status` tells while `state` is held. A leaf.
    let shown: Mutex<Status>
    // The log lacks what the host remembers; the record of it is written before any checkpoint is made.
    let lacksRemembered: Bool

    init(
        options: Options, files: AuditFiles, state: consuming State, signer: (any Signer)?, lacksRemembered: Bool
    ) {
        self.lacksRemembered = lacksRemembered
        self.options = options
        self.files = files
        shown = Mutex(Status(state))
        self.state = Mutex(state)
        self.signer = Mutex(signer)
    }

    /// Adds a record. True when it is durable; otherwise it waits, and is tried again.
    @discardableResult
    package func append(_ kind: AuditKind, zone: ZoneID? = nil, _ fields: [String: String] = [:]) -> Bool {
        post(kind, zone: zone, fields)
        return state.withLock { write(&$0) }
    }

    /// Adds a record that is written within a second, by the log's own thread. For those whom a lower storage that hangs must not
    /// hold up: it takes a leaf lock and does no I/O.
    package func post(_ kind: AuditKind, zone: ZoneID? = nil, _ fields: [String: String] = [:]) {
        let entry = Entry(time: AuditTime.now(), kind: kind, zone: zone?.rawValue, fields: fields)
        queue.withLock { queue in
            if queue.waiting.count < Self.maximumWaiting {
                queue.waiting.append(entry)
            } else {
                queue.lost += 1
                queue.untold += 1
            }
        }
    }

    /// Writes what was posted. True when all of it is durable.
    @discardableResult
    package func flush() -> Bool { state.withLock { write(&$0) } }

    /// Signs a statement about this volume with the key beside the CMK; `nil` where there is none, or it cannot be reached.
    package func sign(_ bytes: [UInt8]) -> Signature? {
        guard let signer = signer.withLock({ $0 }) else { return nil }
        return try? signer.sign(AuditMessage.statement(options.volume, bytes))
    }

    /// Whether `signature` is one that `sign` made for this volume, by one of these keys.
    package static func verifies(
        _ signature: Signature, of bytes: [UInt8], volume: UniqueID, publicKeys: [[UInt8]]
    ) -> Bool {
        publicKeys.contains { signature.fits(AuditMessage.statement(volume, bytes), publicKey: $0) }
    }

    /// The public keys of this log, oldest first.
    package var publicKeys: [[UInt8]] { state.withLock { $0.keys.map(\.publicKey) } }

    /// Does not wait for the lower storage: while something is being written, the records are those of before.
    package var status: Status {
        var status = state.withLockIfAvailable { Status($0) } ?? shown.withLock { $0 }
        (status.waiting, status.lost) = queue.withLock { ($0.waiting.count, $0.lost) }
        return status
    }
}

extension AuditLog.Status {
    /// Without what waits.
    init(_ state: borrowing AuditLog.State) {
        self.init(
            records: state.sequence, sinceCheckpoint: state.sinceCheckpoint, signed: state.signed,
            failures: state.failures, waiting: 0, lost: 0)
    }
}

/// Seconds of a clock that nobody sets.
enum MonotonicTime {
    static var now: Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec
    }
}
