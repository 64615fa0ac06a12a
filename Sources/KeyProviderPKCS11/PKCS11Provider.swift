import CPKCS11
import Ciphers
import KeyManagement

/// CMKs in PKCS#11 tokens: HSMs, TPM 2, smart cards, and the embedded SoftHSM2 token.
///
/// A URI without PIN gets the embedded token's, if it names one (see `EmbeddedToken`); any other needs a `pin-source`,
/// unless the token wants no login or has a keypad of its own.
package struct PKCS11Provider: RootProvider {
    package var scheme: String { "pkcs11" }
    private let options: PKCS11Options

    package init(options: PKCS11Options = PKCS11Options()) { self.options = options }

    package func open(_ uri: String) throws(RootError) -> any CustomerMasterKey { try open(PKCS11URI(uri)) }

    package func create(_ uri: String) throws(RootError) -> any CustomerMasterKey { try create(PKCS11URI(uri)) }

    /// The same for a parsed URI: a stored one, to which the caller has added where the PIN comes from.
    package func open(_ uri: PKCS11URI) throws(RootError) -> any CustomerMasterKey {
        var uri = uri
        let (target, path) = try Self.locate(&uri)
        guard uri.object != nil || uri.id != nil else { throw PKCS11URI.invalid("object or id has to name the key") }
        let selector = KeySelector(label: uri.object.map { Array($0.utf8) }, id: uri.id, type: uri.type)
        let module = try ModuleRegistry.shared.module(at: path)
        try module.perform(on: target, timeoutSeconds: options.timeoutSeconds) { (session) throws(Failure) in
            _ = try session.requireKey(selector, gone: .keyNotFound)
        }
        return PKCS11Key(uri, target: target, modulePath: path, options: options)
    }

    package func signer(beside uri: String) throws(RootError) -> (any Signer)? {
        var uri = try PKCS11URI(uri)
        let (target, path) = try Self.locate(&uri)
        return try PKCS11Key(uri, target: target, modulePath: path, options: options).signer(creating: false)
    }

    /// `type=secret-key` or `type=private` in the URI ask for an AES key or an RSA key; without it the token's best is made.
    package func create(_ uri: PKCS11URI) throws(RootError) -> any CustomerMasterKey {
        var uri = uri
        let (target, path) = try Self.locate(&uri)
        guard let object = uri.object, !object.isEmpty else {
            throw PKCS11URI.invalid("object has to name the new key")
        }
        let id: [UInt8]
        if let given = uri.id {
            id = given
        } else {
            do { id = try RandomBytes.array(16) } catch { throw RootError(.failed, "no random numbers") }
        }
        guard !id.isEmpty else { throw PKCS11URI.invalid("id is empty") }
        let request = KeyRequest(label: Array(object.utf8), id: id, type: uri.type)
        let module = try ModuleRegistry.shared.module(at: path)
        let type = try module.perform(
            on: target, timeoutSeconds: options.generationTimeoutSeconds, recovery: .once
        ) { (session) throws(Failure) in
            try session.createKey(request)
        }
        uri.id = id
        uri.type = type
        return PKCS11Key(uri, target: target, modulePath: path, options: options)
    }

    private static func locate(_ uri: inout PKCS11URI) throws(RootError) -> (Target, path: String) {
        guard uri.type == nil || uri.type == .secretKey || uri.type == .privateKey else {
            throw PKCS11URI.invalid("a CMK is of type secret-key or private")
        }
        if uri.pin == nil { uri.pin = EmbeddedToken.pinSource(of: uri) }
        let path = try ModuleFile.resolve(uri.module)
        return (Target(start: ModuleStart(uri.module), token: uri.token, pin: uri.pin), path)
    }
}
