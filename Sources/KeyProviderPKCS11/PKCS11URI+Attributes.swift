import KeyManagement

extension PKCS11URI {
    /// Stores one decoded path attribute. A text longer than its field in CK_TOKEN_INFO is allowed, as RFC 7512's own
    /// examples have it; it matches nothing.
    mutating func setPathAttribute(_ name: String, _ value: [UInt8]) throws(RootError) {
        switch name {
        case "token": token.token = try Self.text(name, value)
        case "manufacturer": token.manufacturer = try Self.text(name, value)
        case "model": token.model = try Self.text(name, value)
        case "serial": token.serial = try Self.text(name, value)
        case "library-manufacturer": token.libraryManufacturer = try Self.text(name, value)
        case "library-description": token.libraryDescription = try Self.text(name, value)
        case "library-version": token.libraryVersion = try Self.version(value)
        case "slot-manufacturer": token.slotManufacturer = try Self.text(name, value)
        case "slot-description": token.slotDescription = try Self.text(name, value)
        case "slot-id": token.slotID = try Self.number(name, value)
        case "object": object = try Self.text(name, value)
        case "id":
            guard value.count <= 255 else { throw Self.invalid("id is longer than 255 bytes") }
            id = value
        case "type":
            guard let known = ObjectType(rawValue: String(decoding: value, as: UTF8.self)) else {
                throw Self.invalid("type is none of public, private, cert, secret-key, data")
            }
            type = known
        default: throw Self.invalid("unknown path attribute \(name)")
        }
    }

    /// Stores one decoded query attribute.
    mutating func setQueryAttribute(_ name: String, _ value: [UInt8]) throws(RootError) {
        switch name {
        case "module-path": module.path = try Self.absolutePath(name, value)
        case "module-name":
            let text = try Self.text(name, value)
            guard !text.isEmpty, !text.contains("/"), !text.hasPrefix(".") else {
                throw Self.invalid("module-name is a name, not a path")
            }
            module.name = text
        case "pin-source":
            guard pin == nil else { throw Self.invalid("pin-source and pin-value exclude each other") }
            pin = .file(try Self.pinFile(value))
        case "x-conf": module.configuration = try Self.absolutePath(name, value)
        case "x-function-list":
            let text = try Self.text(name, value)
            // The symbol is called as a function: nothing but a function list's getter is accepted.
            let isIdentifier = text.utf8.allSatisfy { PercentCoding.isAlphanumeric($0) || $0 == UInt8(ascii: "_") }
            guard isIdentifier, text.hasSuffix("GetFunctionList") else {
                throw Self.invalid("x-function-list does not name a …GetFunctionList symbol")
            }
            module.functionList = text
        case "x-init-string": module.initString = try Self.text(name, value, maximum: 2048)
        default: throw Self.invalid("unknown query attribute \(name)")
        }
    }

    private static func text(_ name: String, _ value: [UInt8], maximum: Int = 255) throws(RootError) -> String {
        guard value.count <= maximum else { throw invalid("\(name) is longer than \(maximum) bytes") }
        guard !value.contains(0), let text = String(validating: value, as: UTF8.self) else {
            throw invalid("\(name) is not UTF-8 text")
        }
        return text
    }

    private static func absolutePath(_ name: String, _ value: [UInt8]) throws(RootError) -> String {
        let path = try text(name, value, maximum: 4095)
        guard path.hasPrefix("/") else { throw invalid("\(name) is not an absolute path") }
        return path
    }

    /// RFC 7512 §2.4 allows a path or a `file:` URI; programs (`|command`) are refused.
    private static func pinFile(_ value: [UInt8]) throws(RootError) -> String {
        let scheme = Array("file:".utf8)
        guard value.starts(with: scheme) else { return try absolutePath("pin-source", value) }
        var rest = value[scheme.count...]
        if rest.starts(with: Array("//".utf8)) {
            rest = rest.dropFirst(2)
            let authority = rest.prefix { $0 != UInt8(ascii: "/") }
            guard authority.isEmpty || authority.elementsEqual("localhost".utf8) else {
                throw invalid("pin-source names another host")
            }
            rest = rest.dropFirst(authority.count)
        }
        return try absolutePath("pin-source", PercentCoding.decode(rest, alphabet: .query, of: "pin-source"))
    }

    private static func version(_ value: [UInt8]) throws(RootError) -> String {
        let text = try text("library-version", value, maximum: 7)
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        guard let major = parts.first.flatMap({ UInt8($0) }),
            let minor = parts.count == 2 ? UInt8(parts[1]) : 0
        else { throw invalid("library-version is not of the form 1.2") }
        return "\(major).\(minor)"
    }

    private static func number(_ name: String, _ value: [UInt8]) throws(RootError) -> UInt {
        let text = String(decoding: value, as: UTF8.self)
        guard !text.hasPrefix("+"), let number = UInt(text) else { throw invalid("\(name) is not a number") }
        return number
    }
}
