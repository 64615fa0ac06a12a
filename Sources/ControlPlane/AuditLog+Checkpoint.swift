import CLinux
import KeyManagement
import Storage

extension AuditLog {
    /// Starts the thread that tries failed writes again, writes summaries, and makes checkpoints when they are due.
    package func start() {
        PlainThread.detach { [self] in
            while !stopped.load(ordering: .acquiring) {
                usleep(500_000)
                flushCounters(all: false)
                let isWaiting = queue.withLock { !$0.waiting.isEmpty }
                let kek = options.keys()?.activeKEK.version
                let isDue = state.withLock { state in
                    if isWaiting || !state.isFlushed { _ = write(&state) }
                    let age = MonotonicTime.now - state.lastCheckpoint
                    return state.sinceCheckpoint >= Self.checkpointRecords
                        || (state.sinceCheckpoint > 0 && age >= Self.checkpointSeconds)
                        || (kek != nil && kek != state.sealedUnder)
                }
                if isDue, !stopped.load(ordering: .acquiring) { checkpoint() }
            }
        }
    }

    /// The last summaries, a last record, and the last checkpoint. Nothing is appended afterwards, and another process may append.
    package func close(_ last: (kind: AuditKind, fields: [String: String])? = nil) {
        stopped.store(true, ordering: .releasing)
        flushCounters(all: true)
        if let last { append(last.kind, last.fields) }
        checkpoint()
        state.withLock { state in
            state.isClosed = true
            flock(state.file.raw, LOCK_UN)
        }
    }

    /// Signs all records up to now, seals the chain's head under the root zone's KEK, and tells `onCheckpoint`. Does nothing
    /// where nothing was added. After a change of the root zone's KEK, both sealed files are brought under the new one.
    package func checkpoint() {
        checkpointing.withLock { _ in
            // A checkpoint over records that are not written yet would only wait behind them.
            guard state.withLock({ write(&$0) }) else { return }
            let (sequence, hash, count) = state.withLock { ($0.sequence, $0.hash, $0.sinceCheckpoint) }
            if count > 0 {
                let (fields, isSigned) = signed(sequence, hash)
                append(.checkpoint, fields)
                state.withLock { state in
                    state.sinceCheckpoint -= min(count, state.sinceCheckpoint)
                    state.lastCheckpoint = MonotonicTime.now
                    state.signed = isSigned
                }
            }
            seal()
        }
    }

    /// Uses another signing key from now on: that of a CMK that has taken over.
    package func use(_ signer: (any Signer)?) {
        // The old key vouches for what leads to the new one.
        checkpoint()
        if let signer { adopt(signer, reason: "another CMK") }
        self.signer.withLock { $0 = signer }
        checkpoint()
    }

    /// Adds a key to the list, if it is new.
    func adopt(_ signer: any Signer, reason: String) {
        let isNew = state.withLock { state in
            guard !state.keys.contains(where: { $0.publicKey == signer.publicKey }),
                state.keys.count < AuditKeyList.maximumCount
            else { return false }
            state.sealedUnder = nil
            state.keys.append(.init(firstSequence: state.sequence + 1, publicKey: signer.publicKey))
            return true
        }
        guard isNew else { return }
        append(.signingKeyChanged, AuditLog.describe(signer.publicKey).merging(["reason": reason]) { $1 })
    }

    private func signed(_ sequence: UInt64, _ hash: [UInt8]) -> (fields: [String: String], isSigned: Bool) {
        var fields = ["through": "\(sequence)", "head": AuditText.hex(hash)]
        guard let signer = signer.withLock({ $0 }) else {
            fields["unsigned"] = "no signing key"
            return (fields, false)
        }
        do {
            let signature = try signer.sign(AuditMessage.checkpoint(options.volume, sequence: sequence, hash: hash))
            fields["key"] = signature.keyID
            fields["signature"] = Base64.encode(signature.bytes)
            return (fields, true)
        } catch {
            fields["unsigned"] = error.detail
            return (fields, false)
        }
    }

    /// Nothing is sealed while the chain's last record is not on the lower storage: the seal would promise too much.
    func seal() {
        let isWaiting = queue.withLock { !$0.waiting.isEmpty }
        let (head, keys, sealedUnder) = state.withLock { state in
            let head = AuditHead(
                volume: options.volume, sequence: state.sequence, hash: state.hash, end: state.end)
            return (state.isFlushed && !isWaiting ? head : nil, state.keys, state.sealedUnder)
        }
        if let zoneKeys = options.keys() {
            let version = zoneKeys.activeKEK.version
            var isDone = true
            if sealedUnder != version {
                isDone = files.write(AuditKeyList(volume: options.volume, keys: keys), zoneKeys)
            }
            if let head { isDone = files.write(head, zoneKeys) && isDone }
            note(isDone)
            if isDone, head != nil { state.withLock { $0.sealedUnder = $0.keys == keys ? version : nil } }
        }
        if let head {
            var known = Head(
                sequence: head.sequence, hash: head.hash, end: head.end, keys: keys.map(\.publicKey))
            known.isBehindDamage = lacksRemembered
            options.onCheckpoint(known)
        }
    }

    private func note(_ done: Bool) { if !done { state.withLock { $0.failures += 1 } } }

    static func describe(_ publicKey: [UInt8]) -> [String: String] {
        ["publicKey": Base64.encode(publicKey), "key": (try? Signature.keyID(of: publicKey)) ?? ""]
    }
}
