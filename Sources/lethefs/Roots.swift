import KeyManagement
import KeyProviderPKCS11
import VolumeFormat

/// Root URIs: which provider serves them, and which of the trusted ones a keyring means.
struct Roots: Sendable {
    private static let providers: [any RootProvider] = [PKCS11Provider()]
    let trusted: [String]
    /// By a CMK's name in the keyrings, the trusted URI that it was found by where that does not mean it by itself (`bound`).
    let names: [String: String]

    init(trusted: [String], names: [String: String] = [:]) {
        self.trusted = trusted
        self.names = names.filter { trusted.contains($0.value) }
    }

    static func provider(for uri: String) throws(RootError) -> any RootProvider {
        let scheme = uri.prefix { $0 != ":" }
        guard let provider = providers.first(where: { $0.scheme == scheme }) else {
            throw RootError(.invalidURI, "no provider for \"\(scheme):\"; this program knows pkcs11:")
        }
        return provider
    }

    static func open(_ uri: String) throws(RootError) -> any CustomerMasterKey { try provider(for: uri).open(uri) }

    /// Opens an existing CMK, or makes one where the owner has none of that name.
    static func openOrCreate(_ uri: String) throws(RootError) -> (cmk: any CustomerMasterKey, created: Bool) {
        let provider = try provider(for: uri)
        do { return (try provider.open(uri), false) } catch {
            guard error.code == .keyNotFound else { throw error }
            return (try provider.create(uri), true)
        }
    }

    /// The URI to keep for the next mount: where the key is and where its PIN is found, never a PIN.
    static func kept(_ uri: String) -> String {
        guard let parsed = try? PKCS11URI(uri) else { return uri }
        return parsed.textWithPINSource
    }

    /// The signing key beside the CMK that a keyring names, which may be gone.
    func signer(beside named: String) throws(RootError) -> (any Signer)? {
        guard let match = match(named) else { return nil }
        return try Self.provider(for: match).signer(beside: match)
    }

    /// Finds the CMK that a keyring names, among the URIs that the operator or this host vouches for.
    func resolve(_ named: String) throws(RootError) -> any CustomerMasterKey {
        guard let match = match(named) else { throw RootError(.unknownRoot, "none of the roots it trusts is this CMK") }
        return try Self.open(match)
    }

    /// The trusted URI that a keyring means.
    func match(_ named: String) -> String? {
        names[named] ?? trusted.first { Self.means($0, named) }
    }

    /// True when both URIs name the same key: module path and PIN may differ from host to host.
    static func means(_ given: String, _ named: String) -> Bool {
        guard let given = try? PKCS11URI(given), let named = try? PKCS11URI(named) else { return given == named }
        return (given.token.token == nil || given.token.token == named.token.token)
            && (given.object == nil || given.object == named.object) && (given.id == nil || given.id == named.id)
    }
}
