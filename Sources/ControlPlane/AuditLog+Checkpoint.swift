import CLinux
import KeyManagement
import Storage

extension AuditLog {
    /// Starts the thread that tries failed writes again, writes summaries, and makes checkpoints when they are due.
    package func start() {
        Thread.detach { [self] in
            while !stopped.load(ordering: .acquiring) {
                usleep(500_000)
                flushCounters(all: false)
                let isDue = state.withLock { state in
                    if !state.waiting.isEmpty || !state.isFlushed { _ = Self.write(&state) }
                    let age = MonotonicTime.now - state.lastCheckpoint
                    return state.sinceCheckpoint >= Self.checkpointRecords
                        || (state.sinceCheckpoint > 0 && age >= Self.checkpointSeconds)
                }
                if isDue, !stopped.load(ordering: .acquiring) { checkpoint() }
            }
        }
    }

    /// The last summaries and the last checkpoint. Nothing is appended afterwards.
    package func close() {
        stopped.store(true, ordering: .releasing)
        flushCounters(all: true)
        checkpoint()
    }

    /// Signs all records up to now, seals the chain's head under the root zone's KEK, and tells `onCheckpoint`. Does nothing
    /// where nothing was added. After a change of the root zone's KEK, `resealing` brings both sealed files under the new one.
    package func checkpoint(resealing: Bool = false) {
        checkpointing.withLock { _ in
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
            if count > 0 || resealing { seal(withKeyList: resealing) }
        }
    }

    /// Uses another signing key from now on: that of a CMK that has taken over. The next checkpoint is signed by it.
    package func use(_ signer: (any Signer)?) {
        guard let signer else { return self.signer.withLock { $0 = nil } }
        // The old key vouches for what leads to the new one.
        checkpoint()
        adopt(signer, reason: "another CMK")
        seal(withKeyList: true)
        self.signer.withLock { $0 = signer }
        checkpoint()
    }

    /// Adds a key to the list, if it is new.
    func adopt(_ signer: any Signer, reason: String) {
        let isNew = state.withLock { state in
            guard !state.keys.contains(where: { $0.publicKey == signer.publicKey }),
                state.keys.count < AuditKeyList.maximumCount
            else { return false }
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
    func seal(withKeyList: Bool) {
        let (head, keys) = state.withLock { state -> (AuditHead?, [AuditKeyList.Key]) in
            guard state.isFlushed, state.waiting.isEmpty else { return (nil, state.keys) }
            let head = AuditHead(
                volume: options.volume, sequence: state.sequence, hash: state.hash, end: state.end)
            return (head, state.keys)
        }
        let zoneKeys = options.keys()
        if withKeyList, let zoneKeys {
            note(files.write(AuditKeyList(volume: options.volume, keys: keys), zoneKeys))
        }
        guard let head else { return }
        if let zoneKeys { note(files.write(head, zoneKeys)) }
        options.onCheckpoint(Head(sequence: head.sequence, hash: head.hash, keys: keys.map(\.publicKey)))
    }

    private func note(_ done: Bool) { if !done { state.withLock { $0.failures += 1 } } }

    static func describe(_ publicKey: [UInt8]) -> [String: String] {
        ["publicKey": Base64.encode(publicKey), "key": (try? Signature.keyID(of: publicKey)) ?? ""]
    }
}
