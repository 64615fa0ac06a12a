import KeyManagement

/// A PKCS#11 URI (RFC 7512): which module, which token, which key, and where its PIN comes from.
///
/// Parsing is strict and bounded: an attribute that is unknown, repeated, too long or badly encoded is an error, since
/// a name that is silently ignored could select another key.
package struct PKCS11URI: Sendable {
    /// The module, and how it is started.
    package var module = Module()
    /// Path attributes of the token and its slot; `nil` matches anything.
    package var token = TokenAttributes()
    /// CKA_LABEL of the key.
    package var object: String?
    /// CKA_ID of the key: any bytes.
    package var id: [UInt8]?
    package var type: ObjectType?
    /// Where the PIN comes from. Left out of `identity`.
    package var pin: PINSource?

    /// Query attributes that name the module and how it is started.
    package struct Module: Hashable, Sendable {
        package var path: String?
        /// A name without directory and suffix, looked up in the system's directories.
        package var name: String?
        /// `x-conf`: SoftHSM2's configuration file. It sets SOFTHSM2_CONF, and no other variable, for C_Initialize.
        package var configuration: String?
        /// `x-function-list`: the symbol that gives the function list.
        package var functionList: String?
        /// `x-init-string`: passed to C_Initialize as pReserved. NSS cannot be started without one.
        package var initString: String?
        package init() {}
    }

    /// Path attributes that select a token.
    package struct TokenAttributes: Hashable, Sendable {
        package var token: String?
        package var manufacturer: String?
        package var model: String?
        package var serial: String?
        package var libraryManufacturer: String?
        package var libraryDescription: String?
        package var libraryVersion: String?
        package var slotManufacturer: String?
        package var slotDescription: String?
        package var slotID: UInt?
        package init() {}
    }

    /// Object classes by RFC 7512's names.
    package enum ObjectType: String, Sendable, CaseIterable {
        case publicKey = "public"
        case privateKey = "private"
        case certificate = "cert"
        case secretKey = "secret-key"
        case data
    }

    /// Longest URI accepted, in bytes.
    package static let maximumLength = 4096

    package init() {}

    /// Parses a URI. Throws `.invalidURI`.
    package init(_ text: String) throws(RootError) {
        let bytes = Array(text.utf8)
        guard bytes.count <= Self.maximumLength else { throw Self.invalid("longer than \(Self.maximumLength) bytes") }
        let scheme = Array("pkcs11:".utf8)
        let isOurs = zip(bytes, scheme).allSatisfy { $0 == $1 || ($0 >= UInt8(ascii: "A") && $0 | 0x20 == $1) }
        guard bytes.count >= scheme.count, isOurs else {
            throw Self.invalid("does not begin with pkcs11:")
        }
        let rest = bytes[scheme.count...]
        let mark = rest.firstIndex(of: UInt8(ascii: "?"))
        var seen: Set<String> = []
        for part in PercentCoding.split(rest[..<(mark ?? rest.endIndex)], UInt8(ascii: ";")) {
            let (name, value) = try Self.attribute(part, &seen)
            try setPathAttribute(name, PercentCoding.decode(value, alphabet: .path, of: name))
        }
        guard let mark else { return }
        for part in PercentCoding.split(rest[(mark + 1)...], UInt8(ascii: "&")) {
            let (name, value) = try Self.attribute(part, &seen)
            // The one secret is decoded into locked memory, not through an array.
            if name == "pin-value" {
                guard pin == nil else { throw Self.invalid("pin-source and pin-value exclude each other") }
                pin = .value(try PercentCoding.decodeSecret(value))
            } else {
                try setQueryAttribute(name, PercentCoding.decode(value, alphabet: .query, of: name))
            }
        }
    }

    /// The canonical URI without its PIN: attributes in a fixed order, encoded in one way only. It names the key.
    package var identity: String { text(withPIN: false) }

    /// The canonical URI with `pin-source`; a `pin-value` is never written.
    package var textWithPINSource: String { text(withPIN: true) }

    static func invalid(_ detail: String) -> RootError { RootError(.invalidURI, "pkcs11 URI: \(detail)") }

    private static func attribute(
        _ part: ArraySlice<UInt8>, _ seen: inout Set<String>
    ) throws(RootError) -> (name: String, value: ArraySlice<UInt8>) {
        guard let equals = part.firstIndex(of: UInt8(ascii: "=")), equals > part.startIndex else {
            throw invalid("an attribute is not of the form name=value")
        }
        let name = part[..<equals]
        let isName = name.allSatisfy { byte in
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || byte == UInt8(ascii: "-")
        }
        guard isName, name.count <= 32 else { throw invalid("an attribute's name is malformed") }
        let text = String(decoding: name, as: UTF8.self)
        guard seen.insert(text).inserted else { throw invalid("\(text) is given twice") }
        return (text, part[(equals + 1)...])
    }
}
