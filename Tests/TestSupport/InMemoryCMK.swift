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

    package init(_ uri: String = "test:cmk", keyBytes: [UInt8]? = nil) throws(CipherError) {
        self.uri = uri
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
