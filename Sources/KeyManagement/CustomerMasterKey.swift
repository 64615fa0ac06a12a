import Secrets
import VolumeFormat

/// A CMK, wherever it lives. Every call may cross a network; callers hold no lock over one.
///
/// Implementations are safe to call from any thread, bound each call in time, and recover by themselves from an owner
/// that went away and came back.
package protocol CustomerMasterKey: AnyObject, Sendable {
    /// The root URI without secrets: it names the key, and is stored with each wrap.
    var uri: String { get }

    /// What the owner says about the key now.
    func describe() throws(RootError) -> CMKDescription

    /// Wraps a KEK (or a share) by the best algorithm that the owner offers for this key.
    func wrap(_ kek: borrowing SecretKey, context: KEKContext) throws(RootError) -> RootWrap

    /// Unwraps by a real call to the owner, with the recorded algorithm and no other.
    /// Throws `.disabled` when the key's attributes say so, even where the owner would still answer.
    func unwrap(_ wrap: RootWrap, context: KEKContext) throws(RootError) -> SecretKey

    /// Wraps a KEK version so that it can be destroyed alone: in halves, the second under a version key that is generated beside
    /// the CMK (FORMAT §6). Where the owner makes no such keys, the same as `wrap`: the result's algorithm tells.
    func wrapVersion(_ kek: borrowing SecretKey, context: KEKContext) throws(RootError) -> RootWrap

    /// Destroys the version keys of a KEK version at the owner, all but those with the ids `kept`, and looks whether they are
    /// gone. Returns how many it destroyed.
    func destroyVersionKeys(_ context: KEKContext, except kept: [[UInt8]]) throws(RootError) -> Int

    /// Switches the key off or on at its owner, and reads the result back as another program would see it.
    func setEnabled(_ enabled: Bool) throws(RootError)

    /// Whether the owner itself still decrypts with the key, whatever the key's attributes say.
    func isUsableAtOwner() throws(RootError) -> Bool

    /// Destroys the key at its owner, for good. Its signing key stays.
    func destroy() throws(RootError)

    /// The signing key beside the CMK, which outlives it: for the audit log and for certificates. With `creating`, one is
    /// made where there is none. `nil` where there is none, or where the owner makes none.
    func signer(creating: Bool) throws(RootError) -> (any Signer)?
}

extension CustomerMasterKey {
    package func isUsableAtOwner() throws(RootError) -> Bool { try describe().enabled }

    package func wrapVersion(_ kek: borrowing SecretKey, context: KEKContext) throws(RootError) -> RootWrap {
        try wrap(kek, context: context)
    }

    package func destroyVersionKeys(_ context: KEKContext, except kept: [[UInt8]]) throws(RootError) -> Int {
        0
    }
}

/// Facts about a CMK for `cmk show`.
package struct CMKDescription: Sendable, Equatable, Codable {
    /// Where it lives: token label, manufacturer, model, serial; or service and region.
    package var owner: [String: String]
    /// Label and id of the key, as the owner names them.
    package var label: String
    package var id: String
    /// "AES-256", "RSA-3072".
    package var keyType: String
    package var enabled: Bool
    /// Generated in the token, never to leave it: PKCS#11's SENSITIVE, and not EXTRACTABLE.
    package var sensitive: Bool
    package var extractable: Bool
    /// The algorithm that `wrap` would use now.
    package var wrapAlgorithm: String

    package init(
        owner: [String: String], label: String, id: String, keyType: String, enabled: Bool, sensitive: Bool,
        extractable: Bool, wrapAlgorithm: String
    ) {
        self.owner = owner
        self.label = label
        self.id = id
        self.keyType = keyType
        self.enabled = enabled
        self.sensitive = sensitive
        self.extractable = extractable
        self.wrapAlgorithm = wrapAlgorithm
    }
}

/// One kind of owner: opens and creates CMKs by URI.
package protocol RootProvider: Sendable {
    /// URI scheme, such as "pkcs11".
    var scheme: String { get }
    /// Finds an existing CMK.
    func open(_ uri: String) throws(RootError) -> any CustomerMasterKey
    /// The signing key beside a CMK that may be gone: it outlives it. `nil` where there is none.
    func signer(beside uri: String) throws(RootError) -> (any Signer)?
    /// Generates a CMK inside its owner, sensitive and non-extractable. `.denied` if one with that name exists.
    func create(_ uri: String) throws(RootError) -> any CustomerMasterKey
}
