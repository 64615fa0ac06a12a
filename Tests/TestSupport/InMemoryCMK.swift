import Ciphers
import KeyManagement
import Secrets
import Synchronization
import VolumeFormat

/// A CMK in this process, by the ciphers of the mount. Not for any use but tests.
package final class InMemoryCMK: CustomerMasterKey {
    package let uri: String
    private let key: AEADKey
    private let pool: AEADPool
    private let refusal = Mutex<RootError.Code?>(nil)
    private let calls = Atomic<Int>(0)
    private let token: Token
    /// Tests that forbid version keys get plain wraps.
    private let makesVersionKeys: Bool
    private let beforeDestroying = Mutex<DestroyingHook?>(nil)

    /// Where version keys lie, by label and id.
    private final class Token: Sendable {
        let versionKeys = Mutex<[String: [[UInt8]: VersionKey]]>([:])
    }

    private final class VersionKey: Sendable {
        let key: AEADKey
        init() throws(CipherError) { key = AEADKey(try RandomBytes.key()) }
    }

    /// Called before version keys are destroyed. With false they stay, and are said to be destroyed: another node has them.
    package typealias DestroyingHook = @Sendable () throws(RootError) -> Bool

    /// `beside`: in the token of another CMK.
    package init(
        _ uri: String = "test:cmk", keyBytes: [UInt8]? = nil, makesVersionKeys: Bool = true,
        beside other: InMemoryCMK? = nil
    ) throws(CipherError) {
        self.uri = uri
        token = other?.token ?? Token()
        self.makesVersionKeys = makesVersionKeys
        if let keyBytes {
            key = AEADKey(SecretKey(bytes: keyBytes))
        } else {
            key = AEADKey(try RandomBytes.key())
        }
        pool = try AEADPool(slots: 1)
    }

    /// Real unwraps so far.
    package var unwraps: Int { calls.load(ordering: .relaxed) }

    /// What every call answers from now on; `nil` for service as usual.
    package func refuse(_ code: RootError.Code?) { refusal.withLock { $0 = code } }

    package func onDestroying(_ hook: DestroyingHook?) { beforeDestroying.withLock { $0 = hook } }

    private func check() throws(RootError) {
        if let code = refusal.withLock({ $0 }) { throw RootError(code, "test") }
    }

    package func describe() throws(RootError) -> CMKDescription {
        CMKDescription(
            owner: [:], label: uri, id: "", keyType: "AES-256", enabled: refusal.withLock { $0 } == nil,
            sensitive: true,
            extractable: false, wrapAlgorithm: "aesGCM")
    }

    package func wrap(_ kek: borrowing SecretKey, context: KEKContext) throws(RootError) -> RootWrap {
        try check()
        return try seal(kek, under: key, context)
    }

    package func wrapVersion(_ kek: borrowing SecretKey, context: KEKContext) throws(RootError) -> RootWrap {
        guard makesVersionKeys else { return try wrap(kek, context: context) }
        try check()
        do {
            let second = try RandomBytes.key()
            let made = try VersionKey()
            let id = Array(try RandomBytes.key().array().prefix(SplitWrap.idSize))
            token.versionKeys.withLock { $0[context.versionKeyLabel, default: [:]][id] = made }
            return SplitWrap(
                id: id, root: try seal(kek.exclusiveOr(second), under: key, context.rootHalf),
                version: try seal(second, under: made.key, context.versionHalf)
            ).wrap
        } catch { throw RootError(.failed, "test") }
    }

    package func destroyVersionKeys(_ context: KEKContext, except kept: [[UInt8]]) throws(RootError) -> Int {
        try check()
        let destroys = try beforeDestroying.withLock({ $0 })?() ?? true
        return token.versionKeys.withLock { keys in
            let all = keys[context.versionKeyLabel] ?? [:]
            if destroys { keys[context.versionKeyLabel] = all.filter { kept.contains($0.key) } }
            return all.count { !kept.contains($0.key) }
        }
    }

    private func seal(
        _ kek: borrowing SecretKey, under key: borrowing AEADKey, _ context: KEKContext
    ) throws(RootError) -> RootWrap {
        do {
            let iv = Array(try RandomBytes.key().array().prefix(AEADContext.ivSize))
            let plain = kek.array()
            let (ciphertext, tag) = try pool.withContext(for: key) { cipher in
                try cipher.seal(under: key, iv: iv, aad: context.encoded, plain)
            }
            return RootWrap(algorithm: .aesGCM, blob: iv + ciphertext + tag)
        } catch { throw RootError(.failed, "test") }
    }

    package func unwrap(_ wrap: RootWrap, context: KEKContext) throws(RootError) -> SecretKey {
        calls.add(1, ordering: .relaxed)
        try check()
        guard wrap.algorithm == .split else { return try open(wrap, under: key, context) }
        guard let split = try? SplitWrap(parsing: wrap) else { throw RootError(.notAuthentic, "test") }
        let first = try open(split.root, under: key, context.rootHalf)
        guard let version = token.versionKeys.withLock({ $0[context.versionKeyLabel]?[split.id] }) else {
            throw RootError(.versionDestroyed, "test")
        }
        return first.exclusiveOr(try open(split.version, under: version.key, context.versionHalf))
    }

    private func open(
        _ wrap: RootWrap, under key: borrowing AEADKey, _ context: KEKContext
    ) throws(RootError) -> SecretKey {
        guard wrap.algorithm == .aesGCM, wrap.blob.count == 60 else { throw RootError(.notAuthentic, "test") }
        let (iv, ciphertext, tag) = (Array(wrap.blob[..<12]), Array(wrap.blob[12..<44]), Array(wrap.blob[44...]))
        let opened = try? pool.withContext(for: key) { cipher in
            try cipher.open(under: key, iv: iv, aad: context.encoded, ciphertext, tag: tag)
        }
        guard let opened, opened.isAuthentic else { throw RootError(.notAuthentic, "test") }
        return SecretKey(bytes: opened.output)
    }

    package func setEnabled(_ enabled: Bool) throws(RootError) { refuse(enabled ? nil : .disabled) }

    package func destroy() throws(RootError) { refuse(.destroyed) }
}

/// A resolver over a fixed set of CMKs; any other URI is a key that is not there.
package func resolver(_ cmks: [InMemoryCMK]) -> KeyringUnlocking.Resolver {
    { (uri) throws(RootError) in
        guard let cmk = cmks.first(where: { $0.uri == uri }) else { throw RootError(.keyNotFound, uri) }
        return cmk
    }
}
