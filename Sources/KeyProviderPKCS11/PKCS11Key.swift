import CPKCS11
import KeyManagement
import Secrets
import VolumeFormat

/// A CMK in a PKCS#11 token.
///
/// Holds no session and no handle: it finds its key anew for each request, and so sees what others did to it. (tpm2-pkcs11
/// shows that to a newly initialised library only, and gets one each time: see `ModuleQuirks`.)
final class PKCS11Key: CustomerMasterKey {
    let uri: String
    let target: Target
    let selector: KeySelector
    let modulePath: String
    let options: PKCS11Options

    init(_ uri: PKCS11URI, target: Target, modulePath: String, options: PKCS11Options) {
        self.uri = uri.identity
        self.target = target
        selector = KeySelector(label: uri.object.map { Array($0.utf8) }, id: uri.id, type: uri.type)
        self.modulePath = modulePath
        self.options = options
    }

    /// Runs `body` with the key as found now. A token that is away is `.unreachable`, not missing: it was there before.
    func perform<R: ~Copyable & Sendable>(
        _ recovery: Module.Recovery = .repeating,
        _ body: @escaping @Sendable (Session, KeyObjects) throws(Failure) -> R
    ) throws(RootError) -> R {
        let selector = selector
        do throws(RootError) {
            let module = try ModuleRegistry.shared.module(at: modulePath)
            return try module.perform(on: target, timeoutSeconds: options.timeoutSeconds, recovery: recovery) {
                (session) throws(Failure) -> R in
                try body(session, try session.requireKey(selector, gone: .destroyed))
            }
        } catch {
            throw error.code == .tokenNotFound ? RootError(.unreachable, error.detail) : error
        }
    }

    func describe() throws(RootError) -> CMKDescription {
        let path = modulePath
        return try perform { (session, key) throws(Failure) in
            var owner = [
                "token": session.token.label, "manufacturer": session.token.manufacturer,
                "model": session.token.model, "serial": session.token.serial, "module": path,
            ]
            if let library = try? session.cryptoki.libraryInfo() {
                owner["library"] = "\(library.description) \(library.version)"
            }
            let label = try session.attribute(CKA_LABEL, of: key.key) ?? []
            let id = try session.attribute(CKA_ID, of: key.key) ?? []
            let bits = key.modulusSize.map { $0 * 8 } ?? 256
            return CMKDescription(
                owner: owner, label: String(decoding: label, as: UTF8.self),
                id: id.map { $0 < 16 ? "0" + String($0, radix: 16) : String($0, radix: 16) }.joined(),
                keyType: "\(key.kind == .aes ? "AES" : "RSA")-\(bits)",
                enabled: try session.isEnabled(key),
                sensitive: try session.flag(CKA_SENSITIVE, of: key.key) ?? false,
                // Unknown is reported as the worse of the two.
                extractable: try session.flag(CKA_EXTRACTABLE, of: key.key) ?? true,
                wrapAlgorithm: try session.algorithms(for: key).first?.name ?? "none")
        }
    }
}

/// How long calls may take.
package struct PKCS11Options: Sendable {
    /// For one request, recovery included.
    package var timeoutSeconds: Double
    /// For the generation of a key: an RSA key takes a TPM many seconds.
    package var generationTimeoutSeconds: Double

    package init(timeoutSeconds: Double = 10, generationTimeoutSeconds: Double = 120) {
        self.timeoutSeconds = timeoutSeconds
        self.generationTimeoutSeconds = generationTimeoutSeconds
    }
}

extension WrapAlgorithm {
    /// The name that `cmk show` prints.
    var name: String {
        switch self {
        case .aesGCM: "AES-256-GCM"
        case .rsaOAEPSHA256: "RSA-OAEP-SHA256 with HMAC-SHA256"
        case .rsaOAEPSHA1: "RSA-OAEP-SHA1 with HMAC-SHA256"
        case .aesCBCHMAC: "AES-256-CBC with HMAC-SHA256"
        case .split: "halves under CMK and version key"
        }
    }
}
