import CLinux
import ControlPlane
import KeyManagement
import Storage
import Synchronization
import TestSupport
import Testing
import VolumeFormat

/// A log in a directory of its own, with keys and a signer in this process.
final class AuditSample: Sendable {
    let directory: TemporaryDirectory
    let volume = UniqueID(high: 0x0123_4567_89AB_CDEF, low: 0xFEDC_BA98_7654_3210)
    let keys: ZoneKeys
    let signer: InMemorySigner
    private let head = Mutex<AuditLog.Head?>(nil)

    init() throws {
        directory = try TemporaryDirectory(inMemory: true)
        signer = try InMemorySigner()
        let cmk = try InMemoryCMK()
        let unlocking = KeyringUnlocking(resolve: resolver([cmk]))
        keys = try unlocking.create(volume: volume, zone: .root, policy: .anyOf, cmks: [cmk], now: 1).keys
    }

    var logPath: String { directory["audit/log"] }
    /// What the host would remember.
    var remembered: AuditLog.Head? { head.withLock { $0 } }
    func remember(_ other: AuditLog.Head?) { head.withLock { $0 = other } }

    /// `remembering`: against what the host remembers, of a volume that was made with a log.
    func open(
        signer: (any Signer)?, sealing: Bool = true, remembering: Bool = false, maximumScan: UInt64? = nil
    ) throws -> AuditLog {
        let root = try Lower.open(path: directory.path, flags: O_RDONLY | O_DIRECTORY)
        var options = AuditLog.Options(volume: volume) { [keys] in
            sealing ? keys : nil
        } onCheckpoint: { [self] new in
            head.withLock { $0 = new }
        }
        if remembering { (options.remembered, options.isExpected) = (remembered, true) }
        if let maximumScan { options.maximumScan = maximumScan }
        return try AuditLog.open(root, options) { _ in signer }
    }

    func open() throws -> AuditLog { try open(signer: signer) }

    /// A command on a volume that is not mounted: it has the signing key, and no KEK.
    func leave(_ kind: AuditKind) throws {
        let log = try open(signer: signer, sealing: false, remembering: true)
        log.append(kind)
        log.close()
    }

    /// A log of `count` records and two checkpoints, closed.
    static func filled(_ count: Int = 10) throws -> AuditSample {
        let sample = try AuditSample()
        let log = try sample.open()
        for number in 0..<count {
            log.append(.cmkEnabled, zone: .root, ["number": "\(number)"])
            if number == count / 2 { log.checkpoint() }
        }
        log.close()
        return sample
    }

    var lines: [String] {
        get throws { try readText(logPath).split(separator: "\n").map(String.init) }
    }

    func write(_ lines: [String]) throws { try writeText(lines.map { $0 + "\n" }.joined(), to: logPath) }

    func files() throws -> AuditFiles {
        let root = try Lower.open(path: directory.path, flags: O_RDONLY | O_DIRECTORY)
        return try AuditFiles(volumeDirectory: root, creating: false)
    }

    /// Verified against everything: the seals, the keys, and what the host remembers.
    func verify(sealed: Bool = true, remembering: Bool = true, keySource: AuditKeySource = .sealed) throws
        -> AuditReport
    {
        let files = try files()
        var trust = AuditTrust()
        trust.volume = "\(volume)"
        trust.keySource = keySource
        if keySource == .sealed {
            trust.keys = try #require(files.keyList(keys).value).keys.map(\.publicKey)
        } else if keySource == .host {
            trust.keys = [signer.publicKey]
        }
        if sealed, let head = files.sealedHead(keys).value { trust.sealedHead = (head.sequence, head.hash) }
        if remembering, let head = remembered { trust.remembered = (head.sequence, head.hash) }
        return try AuditVerification.run(try files.openLog(), trust)
    }

    /// The records, anew from `sequence` on, so that the chain holds: what a forger without the signing key can do.
    func rechained(_ records: [AuditRecord]) throws -> [String] {
        var previous = AuditRecord.noHash
        return try records.enumerated().map { index, record in
            let new = try AuditRecord(
                sequence: UInt64(index + 1), time: record.time, kind: record.kind, zone: record.zone,
                fields: record.fields, previous: previous)
            previous = new.hash
            return new.line
        }
    }

    func records() throws -> [AuditRecord] { try lines.map { try #require(AuditRecord(line: Array($0.utf8))) } }
}
