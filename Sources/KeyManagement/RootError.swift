/// What a CMK's owner (HSM or KMS) answered, or why it did not. Equal by code.
package struct RootError: Error, Sendable {
    package enum Code: String, Sendable, CaseIterable {
        /// The root URI cannot be parsed, or lacks something.
        case invalidURI
        /// The PKCS#11 module cannot be loaded or initialised.
        case moduleUnavailable
        /// The module answers, but has no such token.
        case tokenNotFound
        /// The token answers, but holds no such key.
        case keyNotFound
        /// Several keys match the URI.
        case keyAmbiguous
        /// This host trusts no root that is the CMK asked for: nobody was asked, and nothing is known of the key.
        case unknownRoot
        /// The PIN is wrong.
        case pinIncorrect
        /// The PIN is locked after too many failures.
        case pinLocked
        /// No PIN could be had (no source, unreadable file).
        case pinUnavailable
        /// The key is switched off: its owner says so, or its attributes do.
        case disabled
        /// The owner refuses this caller.
        case denied
        /// The key is scheduled for destruction.
        case pendingDeletion
        /// The key no longer exists at its owner.
        case destroyed
        /// The CMK is there, but the version key of this one KEK version was destroyed: it was retired or shredded.
        case versionDestroyed
        /// The owner asks to be called less often.
        case throttled
        /// The owner cannot be reached.
        case unreachable
        /// The call did not return in its time.
        case timedOut
        /// The wrapped key was changed, belongs to another context, or to another key.
        case notAuthentic
        /// The owner offers no mechanism for this, or cannot do this at all.
        case unsupported
        /// The owner failed in a way that none of the others names.
        case failed
    }

    package var code: Code
    /// The failing call and its own code, such as "C_Decrypt: CKR_DEVICE_REMOVED". Never a secret.
    package var detail: String

    package init(_ code: Code, _ detail: String) {
        self.code = code
        self.detail = detail
    }
}

extension RootError: Equatable {
    package static func == (left: RootError, right: RootError) -> Bool { left.code == right.code }
}
