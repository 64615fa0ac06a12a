import KeyManagement
import KeyProviderPKCS11

extension Rotation {
    /// The URI of the CMK that follows `named`: in the same token, with the same name and the next number.
    static func successor(of named: String, _ roots: Roots) throws -> String {
        guard let trusted = roots.match(named), var uri = try? PKCS11URI(trusted) else {
            throw Failure(
                .keyNotFound, "this host does not know where the CMK lives", meaning: "Nothing was changed.",
                remedy: "name the new one with --root URI")
        }
        let current = (try? PKCS11URI(named))?.object ?? uri.object ?? "cmk"
        uri.object = next(current)
        uri.id = nil
        return uri.textWithPINSource
    }

    /// "cmk" → "cmk-v2" → "cmk-v3".
    static func next(_ label: String) -> String {
        let parts = label.split(separator: "-", omittingEmptySubsequences: false)
        if let last = parts.last, last.hasPrefix("v"), let number = UInt32(last.dropFirst()), number < UInt32.max {
            return label.dropLast(last.count) + "v\(number + 1)"
        }
        return label + "-v2"
    }

    /// What this host keeps of a new CMK: the identity that its owner gave, and where the PIN is.
    static func kept(_ given: String, _ identity: String) -> String {
        guard let given = try? PKCS11URI(given), var uri = try? PKCS11URI(identity) else { return Roots.kept(given) }
        uri.pin = given.pin
        return uri.textWithPINSource
    }
}
