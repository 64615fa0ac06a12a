import Ciphers
import KeyManagement
import Storage
import VolumeFormat

extension AuditLog {
    /// Which signing key to use, given those that sign the log already.
    package typealias ChooseSigner = (_ known: [[UInt8]]) -> (any Signer)?

    /// Opens a volume's log for appending; makes one where there is none. What a crash left is repaired, and what does not fit the
    /// seal is told in a record of its own.
    package static func open(
        _ volumeDirectory: Descriptor, _ options: Options, signer choose: ChooseSigner
    ) throws(AuditError) -> AuditLog {
        let files = try AuditFiles(volumeDirectory: volumeDirectory, creating: true)
        let file = try files.openForAppending()
        let zoneKeys = options.keys()
        let list: AuditFiles.Sealed<AuditKeyList> = zoneKeys.map { files.keyList($0) } ?? .missing
        let sealed: AuditFiles.Sealed<AuditHead> = zoneKeys.map { files.sealedHead($0) } ?? .missing
        let tail: AuditTail
        let length: UInt64
        var last = UInt8(ascii: "\n")
        do throws(Errno) {
            tail = try AuditTail(
                file, head: sealed.value, remembered: options.remembered, maximumScan: options.maximumScan)
            length = UInt64(try Lower.stat(file).st_size)
            if length > 0 { last = try Lower.readValue(file, at: length - 1, initial: last) }
        } catch { throw .lower(error, "reading .lethefs/audit/log") }

        let keys = list.value?.keys ?? []
        let signer = choose(keys.map(\.publicKey))
        var state = State(
            file: file, end: length, sequence: tail.last?.sequence ?? 0, hash: tail.last?.hash ?? AuditRecord.noHash,
            keys: keys)
        state.needsNewline = last != UInt8(ascii: "\n")
        if let head = sealed.value, !tail.headFound, state.sequence < head.sequence {
            // The chain goes on where it was sealed: what is missing stays missing.
            (state.sequence, state.hash) = (head.sequence, head.hash)
        }
        let isNew = tail.last == nil && state.sequence == 0
        let log = AuditLog(
            options: options, files: files, state: state, signer: signer, lacksRemembered: !tail.rememberedFound)
        if isNew { log.begin(signer) }
        if isNew, options.isExpected { log.append(.logDamaged, ["what": "the whole log was removed"]) }
        if let zoneKeys {
            log.tell(tail, sealed, list, isNew: isNew, volume: zoneKeys.volume)
        } else {
            log.tellWithoutKeys(tail)
        }
        if let signer, !isNew, zoneKeys != nil {
            log.adopt(signer, reason: keys.isEmpty ? "no key was known" : "another CMK")
        }
        // What was known is sealed again at the next checkpoint only if it is new, or under another KEK.
        let sealedUnder = list.value == nil ? nil : files.keyListVersion
        log.state.withLock { if $0.keys == keys { $0.sealedUnder = sealedUnder } }
        if zoneKeys != nil, log.state.withLock({ $0.sealedUnder == nil }) { log.seal() }
        return log
    }

    /// The first record.
    private func begin(_ signer: (any Signer)?) {
        var fields = ["volume": "\(options.volume)", "format": "\(AuditRecord.formatVersion)"]
        if let signer {
            fields.merge(Self.describe(signer.publicKey)) { $1 }
            state.withLock { $0.keys = [.init(firstSequence: 1, publicKey: signer.publicKey)] }
        } else {
            fields["unsigned"] = "the token makes no signing key"
        }
        append(.logStarted, fields)
    }

    /// What was found at the log's end, as records.
    private func tell(
        _ tail: AuditTail, _ sealed: AuditFiles.Sealed<AuditHead>, _ list: AuditFiles.Sealed<AuditKeyList>,
        isNew: Bool, volume: UniqueID
    ) {
        repair(tail)
        if case .refused = sealed { append(.logDamaged, ["what": "the sealed head is not authentic"]) }
        if case .refused = list { append(.logDamaged, ["what": "the sealed key list is not authentic"]) }
        tellOfMemory(tail)
        // Record 1 alone: a crash came before the first seal.
        if !isNew, tail.last.map({ $0.sequence > 1 }) ?? true {
            if case .missing = list { append(.logDamaged, ["what": "the sealed key list is missing"]) }
            if case .missing = sealed { append(.logDamaged, ["what": "the sealed head is missing"]) }
        }
        guard let head = sealed.value else { return }
        let last = tail.last?.sequence ?? 0
        if !tail.headFound {
            let what = last < head.sequence ? "records are missing at its end" : "the sealed record is another one"
            append(.logDamaged, ["what": what, "sealed": "\(head.sequence)", "found": "\(last)"])
        } else if last > head.sequence {
            append(.logAdopted, ["from": "\(head.sequence + 1)", "to": "\(last)"])
        }
    }

    /// The same where nothing vouches for the log but the host's memory: what stands behind that is named before it is signed.
    private func tellWithoutKeys(_ tail: AuditTail) {
        repair(tail)
        tellOfMemory(tail)
        guard let remembered = options.remembered, tail.rememberedFound else { return }
        let last = tail.last?.sequence ?? 0
        if last > remembered.sequence {
            append(.logAdopted, ["from": "\(remembered.sequence + 1)", "to": "\(last)"])
        }
    }

    private func tellOfMemory(_ tail: AuditTail) {
        guard !tail.rememberedFound else { return }
        append(.logDamaged, ["what": "the log lacks the record that this host remembers"])
    }

    /// A write that a crash cut off stays where it is, by itself on a line; the record behind it says what it was.
    private func repair(_ tail: AuditTail) {
        if tail.isOverlong {
            append(.logDamaged, ["what": "more stands at its end than a crash leaves, or than a mount reads"])
            return
        }
        guard !tail.torn.isEmpty, let hash = try? SHA256.digest(tail.torn) else { return }
        append(.logRepaired, ["bytes": "\(tail.torn.count)", "sha256": AuditText.hex(hash)])
    }
}
