/// SoftHSM2's `token.object`, as far as a copy of it has to tell: an integer (how often it was written), then attributes, each a type, a kind
/// and a value. Integers have 8 bytes, the highest first.
struct EmbeddedObject {
    private enum Attribute {
        static let serial: UInt64 = 0x8000_534A
        static let flags: UInt64 = 0x8000_534B
        static let securityOfficerPIN: UInt64 = 0x8000_534C
        static let userPIN: UInt64 = 0x8000_534D
    }

    private enum Kind {
        static let flag: UInt64 = 1
        static let integer: UInt64 = 2
        static let bytes: UInt64 = 3
    }

    private var attributes: [UInt64: ArraySlice<UInt8>] = [:]

    /// `nil` unless it is whole, and has the token's key under both PINs.
    init?(_ bytes: [UInt8]) {
        var rest = bytes[...]
        guard Self.integer(&rest) != nil else { return nil }
        while !rest.isEmpty {
            guard let type = Self.integer(&rest), let kind = Self.integer(&rest) else { return nil }
            let count: Int
            switch kind {
            case Kind.flag: count = 1
            case Kind.integer: count = 8
            case Kind.bytes:
                guard let length = Self.integer(&rest), length <= rest.count else { return nil }
                count = Int(length)
            default: return nil
            }
            guard count <= rest.count, attributes.updateValue(rest.prefix(count), forKey: type) == nil else {
                return nil
            }
            rest = rest.dropFirst(count)
        }
        for type in [Attribute.serial, Attribute.securityOfficerPIN, Attribute.userPIN] {
            guard attributes[type]?.contains(where: { $0 != 0 }) == true else { return nil }
        }
    }

    func isToken(serial: String) -> Bool { attributes[Attribute.serial]?.elementsEqual(serial.utf8) == true }

    /// Flags change at each login, and count for nothing: what opens the keys is the same.
    func opensAs(_ other: EmbeddedObject) -> Bool {
        attributes.filter { $0.key != Attribute.flags } == other.attributes.filter { $0.key != Attribute.flags }
    }

    private static func integer(_ rest: inout ArraySlice<UInt8>) -> UInt64? {
        guard rest.count >= 8 else { return nil }
        defer { rest = rest.dropFirst(8) }
        return rest.prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }
}
