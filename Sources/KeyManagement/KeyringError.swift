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

    /// What an answer is to a lease, the mildest first.
    package enum Gravity: Int, Sendable, Comparable {
        /// The owner was not reached, or had no time: the volume's grace is for this.
        case outOfReach
        /// Nobody was asked: this host does not know the CMK.
        case notAsked
        /// Neither yes nor no, such as a refused PIN, or bytes that do not authenticate: a lease bridges it, grace does not.
        case amiss
        /// The owner answered, and the answer was no: the keys have to go now.
        case refusal

        package static func < (left: Gravity, right: Gravity) -> Bool { left.rawValue < right.rawValue }
    }

    package var gravity: Gravity {
        switch self {
        case .root(let error, _):
            switch error.code {
            case .unknownRoot: .notAsked
            case .unreachable, .timedOut, .throttled, .tokenNotFound, .moduleUnavailable: .outOfReach
            case .disabled, .denied, .pendingDeletion, .destroyed, .versionDestroyed, .keyNotFound: .refusal
            case .invalidURI, .keyAmbiguous, .pinIncorrect, .pinLocked, .pinUnavailable, .notAuthentic, .unsupported,
                .failed:
                .amiss
            }
        case .notAuthentic, .format, .noUsableKEK, .cipher, .inUse, .full: .amiss
        }
    }

    package var isRefusal: Bool { gravity == .refusal }
}
