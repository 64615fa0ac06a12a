import Ciphers
import VolumeFormat

/// Why a zone's keys could not be had.
package enum KeyringError: Error, Sendable, Equatable {
    /// A CMK's owner answered no, or not at all; the URI names the CMK.
    case root(RootError, uri: String)
    /// The keyring or the volume's description was changed, or belongs elsewhere.
    case notAuthentic
    /// The keyring is not one, or one that this program does not know.
    case format(FormatError)
    /// The keyring holds no KEK that may still decrypt.
    case noUsableKEK
    /// The KEK version is active, or still wraps something in the keyring.
    case inUse
    /// The keyring holds as many keys as it can.
    case full
    /// The cryptographic library failed.
    case cipher(CipherError)

    /// The owner answered, and the answer was no: the keys have to go now. Anything else may be an outage, which a lease bridges.
    package var isRefusal: Bool {
        switch self {
        case .root(let error, _):
            switch error.code {
            case .disabled, .denied, .pendingDeletion, .destroyed, .versionDestroyed, .keyNotFound: true
            default: false
            }
        case .notAuthentic, .format, .noUsableKEK, .cipher, .inUse, .full: false
        }
    }
}
