import CPKCS11
import Ciphers
import KeyManagement

/// The signing key beside a CMK: in the same token, labelled after it, with `-audit` at the end.
final class PKCS11Signer: Signer {
    let publicKey: [UInt8]
    private let keyID: String
    private let label: [UInt8]
    private let target: Target
    private let modulePath: String
    private let options: PKCS11Options

    fileprivate init(_ publicKey: [UInt8], label: [UInt8], of cmk: PKCS11Key) throws(RootError) {
        self.publicKey = publicKey
        do { keyID = try Signature.keyID(of: publicKey) } catch { throw RootError(.failed, "SHA-256") }
        self.label = label
        target = cmk.target
        modulePath = cmk.modulePath
        options = cmk.options
    }

    func sign(_ message: [UInt8]) throws(RootError) -> Signature {
        let (label, publicKey) = (label, publicKey)
        let module = try ModuleRegistry.shared.module(at: modulePath)
        let bytes = try module.perform(on: target, timeoutSeconds: options.timeoutSeconds) {
            (session) throws(Failure) in
            guard let key = try session.findSigningKey(label), key.publicKey == publicKey else {
                throw Failure(
                    .keyNotFound, "the token \"\(session.token.label)\" holds the signing key no more",
                    mayNeedRestart: session.cryptoki.quirks.mayLoseObjects)
            }
            return try session.sign(message, with: key)
        }
        return Signature(keyID: keyID, bytes: bytes)
    }
}

extension PKCS11Key {
    private static let suffix = Array("-audit".utf8)

    func signer(creating: Bool) throws(RootError) -> (any Signer)? {
        let label = try signingLabel()
        let id: [UInt8]
        do { id = try RandomBytes.array(16) } catch { throw RootError(.failed, "no random numbers") }
        let module = try ModuleRegistry.shared.module(at: modulePath)
        // A call that may make a key is not repeated: it could make two. Nor is one that looks whether there is one: where a library loses
        // objects, `.once` sees to it that this one has lost none.
        let publicKey = try module.perform(
            on: target, timeoutSeconds: creating ? options.generationTimeoutSeconds : options.timeoutSeconds,
            recovery: .once
        ) { (session) throws(Failure) -> [UInt8]? in
            if let found = try session.findSigningKey(label) { return found.publicKey }
            guard creating else { return nil }
            return try session.withFreshSession(writable: true) { (writer) throws(Failure) in
                try writer.createSigningKey(label, id: id)?.publicKey
            }
        }
        guard let publicKey else { return nil }
        return try PKCS11Signer(publicKey, label: label, of: self)
    }

    /// From the URI, or, where that has only an id, from the key itself.
    private func signingLabel() throws(RootError) -> [UInt8] {
        if let label = selector.label { return label + Self.suffix }
        return try perform { (session, key) throws(Failure) in
            try session.attribute(CKA_LABEL, of: key.key) ?? key.kind.anonymousLabel
        } + Self.suffix
    }
}

extension KeyObjects.Kind {
    fileprivate var anonymousLabel: [UInt8] { Array("lethefs".utf8) }
}
