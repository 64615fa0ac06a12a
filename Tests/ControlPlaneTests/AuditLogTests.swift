import CLinux
import ControlPlane
import Dispatch
import KeyManagement
import Storage
import Synchronization
import TestSupport
import Testing
import VolumeFormat

/// The log as a process appends to it.
@Suite struct AuditLogTests {
    @Test func goesOnWhereItEnded() throws {
        let sample = try AuditSample.filled()
        for _ in 0..<3 {
            let log = try sample.open()
            log.append(.mounted)
            log.close()
        }
        let report = try sample.verify()
        #expect(report.findings.isEmpty && report.notes.isEmpty, "\(report)")
        #expect(report.records == 13 + 6 && report.signedThrough == 18)
    }

    /// The lower storage does not answer: whoever asks for the log's status does not wait for it.
    @Test func itsStatusIsToldWhileTheLowerStorageHangs() throws {
        let sample = try AuditSample()
        let log = try sample.open()
        log.append(.mounted)
        let known = log.status
        let isTold = Mutex(false)
        FaultInjection.arm(nth: 1, of: [.pwrite]) {
            let told = DispatchSemaphore(value: 0)
            DispatchQueue.global().async {
                _ = log.status
                told.signal()
            }
            let answered = told.wait(timeout: .now() + 5) == .success
            isTold.withLock { $0 = answered }
        }
        log.append(.mounted)
        FaultInjection.disarm()
        #expect(isTold.withLock { $0 })
        #expect(log.status.records == known.records + 1)
        log.close()
    }

    @Test func onlyOneProcessAppends() throws {
        let sample = try AuditSample()
        let log = try sample.open()
        #expect(throws: AuditError.busy) { try sample.open() }
        log.close()
    }

    /// What a crash leaves at the end, cut at many places of the last record; the log goes on, and nothing is amiss.
    @Test func aTornTail() throws {
        let sample = try AuditSample.filled(3)
        // Its end without a checkpoint: as by a crash.
        do { try sample.open().append(.mounted, zone: .root, ["a": "b"]) }
        let whole = try readText(sample.logPath)
        let last = try #require(try sample.lines.last).utf8.count + 1
        for cut in stride(from: 0, through: last, by: 5) {
            try writeText(String(whole.dropLast(cut)), to: sample.logPath)
            if cut > 0, cut < last {
                let report = try sample.verify(remembering: false)
                #expect(report.findings.isEmpty && report.notes.count == 1, "\(cut): \(report)")
            }
            let next = try sample.open()
            next.append(.mounted)
            next.close()
            let report = try sample.verify(remembering: false)
            #expect(report.findings.isEmpty, "\(cut): \(report.findings)")
            #expect(report.notes.count == (cut <= 1 || cut == last ? 0 : 1), "\(cut): \(report.notes)")
            // The seal of this round is not that of the next.
            try restoreSeal(sample, whole)
        }
        // Zeros, as file systems leave them, with and without a newline.
        for tail in [String(repeating: "\0", count: 300), "\0\0\n", "\0\n\0"] {
            try writeText(whole + tail, to: sample.logPath)
            let next = try sample.open()
            next.close()
            #expect(try sample.verify().findings.isEmpty)
            try restoreSeal(sample, whole)
        }
    }

    /// Writes the log, and has it sealed as it is before its last record.
    private func restoreSeal(_ sample: AuditSample, _ whole: String) throws {
        let sealedPart = whole.split(separator: "\n").dropLast().joined(separator: "\n") + "\n"
        try writeText(sealedPart, to: sample.logPath)
        unlink(sample.directory["audit/head"])
        let record = try #require(
            AuditRecord(line: Array(sealedPart.split(separator: "\n").last.map(String.init)?.utf8 ?? "".utf8)))
        let head = AuditHead(
            volume: sample.volume, sequence: record.sequence, hash: record.hash, end: UInt64(sealedPart.utf8.count))
        #expect(try sample.files().write(head, sample.keys))
    }

    /// More rubbish than a crash leaves: told, not kept in memory, and found.
    @Test func muchRubbishAtTheEnd() throws {
        for rubbish in [String(repeating: "x", count: 2 << 20), String(repeating: "no record\n", count: 150_000)] {
            let sample = try AuditSample.filled(3)
            try writeText(try readText(sample.logPath) + rubbish, to: sample.logPath)
            let log = try sample.open()
            log.append(.mounted)
            log.close()
            let report = try sample.verify()
            #expect(Set(report.findings.map(\.what)) == [.told, .malformed], "\(report.findings)")
            #expect(report.findings.count == 2 && report.sealedThrough == 9)
        }
    }

    @Test func concurrentAppends() throws {
        let sample = try AuditSample()
        let log = try sample.open()
        log.start()
        DispatchQueue.concurrentPerform(iterations: 8) { thread in
            for number in 0..<50 {
                #expect(log.append(.cmkEnabled, ["thread": "\(thread)", "number": "\(number)"]))
            }
        }
        log.close()
        let report = try sample.verify()
        #expect(report.findings.isEmpty && report.records - report.checkpoints == 401, "\(report)")
        #expect(report.checkpoints >= 1 && report.signedCheckpoints == report.checkpoints)
        // Each thread's records are in its own order.
        for thread in 0..<8 {
            let mine = try sample.records().filter { $0.fields["thread"] == "\(thread)" }
            #expect(mine.compactMap { $0.fields["number"].flatMap { Int($0) } } == Array(0..<50))
        }
    }

    /// A lower storage that fails: records wait, nothing is torn, and they are written when it is well again.
    @Test(arguments: [
        (FaultInjection.Fault.errno(.noSpace), [LowerCall.pwrite]), (.short, [.pwrite]), (.errno(.io), [.fdatasync]),
        (.errno(.io), [.fstat]), (.errno(.noSpace), [.pwrite, .ftruncate]),
    ])
    func failingWrites(fault: FaultInjection.Fault, calls: [LowerCall]) throws {
        for nth in 1...3 {
            let sample = try AuditSample.filled(2)
            let log = try sample.open()
            FaultInjection.arm(nth: nth, of: Set(calls), fault: fault, repeats: true)
            let results = (0..<4).map { log.append(.cmkEnabled, ["number": "\($0)"]) }
            FaultInjection.disarm()
            if fault != .short { #expect(results.contains(false) && log.status.failures > 0) }
            #expect(log.append(.cmkDisabled))
            #expect(log.status.waiting == 0)
            log.close()
            let report = try sample.verify()
            #expect(report.findings.isEmpty && report.notes.isEmpty, "\(nth): \(report)")
            #expect(try sample.records().filter { $0.fields["number"] != nil }.count == 2 + 4)
        }
    }

    @Test func whatFindsNoRoomIsCounted() throws {
        let sample = try AuditSample()
        let log = try sample.open()
        FaultInjection.arm(nth: 1, of: [.pwrite], fault: .errno(.noSpace), repeats: true)
        for _ in 0..<1100 { log.append(.cmkEnabled) }
        FaultInjection.disarm()
        #expect(log.status.lost == 76 && log.status.waiting == 1024)
        #expect(log.append(.cmkDisabled) || log.append(.cmkDisabled))
        log.close()
        #expect(try sample.verify().findings.isEmpty)
        #expect(try sample.records().contains { $0.kind == "records-lost" && $0.fields["count"] != nil })
    }

    @Test func withoutASignature() throws {
        let sample = try AuditSample()
        let log = try sample.open(signer: nil)
        log.append(.mounted)
        log.close()
        let report = try sample.verify()
        #expect(report.findings.isEmpty && report.signedThrough == 0 && report.checkpoints == 1)
        #expect(report.notes.count == 1 && report.keys.isEmpty)
        #expect(log.sign([1, 2, 3]) == nil)
    }

    /// A token that is away for a while: the checkpoint says so, and the next signature covers everything.
    @Test func aTokenThatIsAway() throws {
        let sample = try AuditSample()
        let log = try sample.open()
        sample.signer.refuse(.unreachable)
        log.append(.mounted)
        log.checkpoint()
        #expect(!log.status.signed)
        sample.signer.refuse(nil)
        log.append(.revoked)
        log.close()
        let report = try sample.verify()
        #expect(report.findings.isEmpty && report.checkpoints == 2 && report.signedCheckpoints == 1)
        #expect(report.signedThrough == 4)
    }

    /// A CMK in another token takes over: the new key is named by a record that the old one signed.
    @Test func anotherSigningKey() throws {
        let sample = try AuditSample.filled()
        let log = try sample.open()
        let second = try InMemorySigner()
        log.use(second)
        log.append(.cmkRotated)
        log.close()
        let report = try sample.verify()
        #expect(report.findings.isEmpty && report.keys.count == 2 && report.signedCheckpoints == report.checkpoints)
        // Back to the first, at a later mount: known already.
        let again = try sample.open()
        again.append(.mounted)
        again.close()
        #expect(try sample.verify().findings.isEmpty)
        #expect(try sample.records().filter { $0.kind == "signing-key-changed" }.count == 1)
    }

    @Test func statementsAreBoundToTheVolumeAndTheirUse() throws {
        let sample = try AuditSample.filled()
        let log = try sample.open()
        let signature = try #require(log.sign([1, 2, 3]))
        let keys = log.publicKeys
        #expect(AuditLog.verifies(signature, of: [1, 2, 3], volume: sample.volume, publicKeys: keys))
        #expect(!AuditLog.verifies(signature, of: [1, 2, 4], volume: sample.volume, publicKeys: keys))
        #expect(!AuditLog.verifies(signature, of: [1, 2, 3], volume: UniqueID(high: 1, low: 1), publicKeys: keys))
        #expect(!signature.fits([1, 2, 3], publicKey: keys[0]))
        #expect(!AuditLog.verifies(signature, of: [1, 2, 3], volume: sample.volume, publicKeys: []))
        log.close()
    }

    /// Somebody wrote to the file meanwhile: the log goes on, and says so; the stranger's lines are found.
    @Test func strangersInTheFile() throws {
        let sample = try AuditSample.filled(2)
        let log = try sample.open()
        let before = try readText(sample.logPath)
        let forged = try AuditRecord(
            sequence: 6, time: AuditTime.now(), kind: "cmk-enabled", zone: nil, fields: [:],
            previous: try #require(try sample.records().last).hash)
        let file = try Lower.open(path: sample.logPath, flags: O_WRONLY | O_APPEND)
        let line = Array((forged.line + "\n").utf8)
        #expect(line.withUnsafeBytes { write(file.raw, $0.baseAddress, $0.count) } == line.count)
        log.append(.mounted)
        #expect(try readText(sample.logPath).hasPrefix(before + forged.line))
        try Lower.truncate(file, to: 700)
        log.append(.unmounted)
        log.close()
        let report = try sample.verify()
        #expect(!report.findings.isEmpty)
        #expect(report.findings.contains { $0.what == .told && $0.detail.contains("length was changed") })
    }

    /// Log, seal or key list taken away between mounts: the next mount goes on, and says so.
    @Test(arguments: ["log", "head", "key"])
    func filesTakenAway(name: String) throws {
        let sample = try AuditSample.filled()
        unlink(sample.directory["audit/" + name])
        let log = try sample.open()
        log.append(.mounted)
        log.close()
        #expect(try sample.records().contains { $0.kind == "log-damaged" })
        let report = try sample.verify()
        #expect(
            report.findings.contains { $0.what == .told }
                && (name == "log") == report.findings.contains { $0.what == .missing }, "\(report)")
    }

    @Test func countersAreSummed() throws {
        let sample = try AuditSample()
        let log = try sample.open()
        for _ in 0..<5 { log.count(.damageMet, "page", urgent: true) }
        log.count(.leaseRenewed, zone: .root, "renewals")
        for number in 0..<40 { log.count(.damageMet, "kind-\(number)", urgent: true) }
        log.close()
        let damage = try #require(try sample.records().first { $0.kind == "damage-met" })
        #expect(damage.fields["page"] == "5" && damage.fields.count == 17 && damage.fields["other"] == "25")
        #expect(try sample.records().contains { $0.kind == "lease-renewed" && $0.fields["renewals"] == "1" })
    }
}
