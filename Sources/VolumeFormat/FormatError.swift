/// Why bytes from disk were refused. Equal by code, so that tests stay short.
package struct FormatError: Error, Hashable, Sendable {
    package enum Code: String, Sendable {
        /// Not an object of this format at all.
        case notMagic
        /// A format version that this program does not know.
        case unknownVersion
        /// A feature flag that this program does not know: a newer program wrote it.
        case unknownFeature
        /// A length, count or value outside its bounds, or trailing bytes.
        case malformed
        /// Shorter than its own structure.
        case truncated
        /// The MAC or tag does not fit: changed, or from another place.
        case notAuthentic
        /// A key version that no slot holds.
        case unknownKey
        /// A name that cannot be a name.
        case invalidName
    }

    package var code: Code
    /// What was being read ("file header", "keyring"); constant text, never data.
    package var object: StaticText

    package init(_ code: Code, _ object: StaticString) {
        self.code = code
        self.object = StaticText(object)
    }
}

/// A constant string that compares by its text.
package struct StaticText: Hashable, Sendable, CustomStringConvertible {
    private let text: StaticString
    package init(_ text: StaticString) { self.text = text }
    package var description: String { text.description }
    package static func == (left: StaticText, right: StaticText) -> Bool { left.description == right.description }
    package func hash(into hasher: inout Hasher) { hasher.combine(description) }
}
