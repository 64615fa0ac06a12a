/// A failure of the cryptographic library, or of authentication. Equal by code.
package struct CipherError: Error, Hashable, Sendable {
    package enum Code: String, Sendable {
        /// A tag, an integrity check value or a MAC does not fit.
        case notAuthentic
        /// The library has no such algorithm under the demanded properties (FIPS).
        case unavailable
        /// The library refused or failed.
        case failed
    }

    package var code: Code
    package init(_ code: Code) { self.code = code }
}
