/// Key states of SP 800-57 Part 1 §7.
package enum KeyState: UInt8, Sendable, CaseIterable {
    case preActivation = 0
    case active = 1
    case suspended = 2
    case deactivated = 3
    case compromised = 4
    case destroyed = 5

    package var name: String {
        switch self {
        case .preActivation: "pre-activation"
        case .active: "active"
        case .suspended: "suspended"
        case .deactivated: "deactivated"
        case .compromised: "compromised"
        case .destroyed: "destroyed"
        }
    }

    /// True while the key may still open what it sealed.
    package var mayDecrypt: Bool { self == .active || self == .deactivated || self == .compromised }
}

/// A state and when it was entered, in seconds since 1970.
package struct StateChange: Equatable, Sendable {
    package var state: KeyState
    package var at: UInt64
    package init(_ state: KeyState, at: UInt64) {
        self.state = state
        self.at = at
    }

    package static let maximumCount = 64

    static func encode(_ history: [StateChange], into writer: inout ByteWriter) {
        writer.append(UInt8(history.count))
        for change in history {
            writer.append(change.state.rawValue)
            writer.append(change.at)
        }
    }

    static func decode(from reader: inout ByteReader, of object: StaticString) throws(FormatError) -> [StateChange] {
        let count = Int(try reader.read(UInt8.self))
        guard (1...maximumCount).contains(count) else { throw FormatError(.malformed, object) }
        var history: [StateChange] = []
        for _ in 0..<count {
            guard let state = KeyState(rawValue: try reader.read()) else { throw FormatError(.malformed, object) }
            history.append(StateChange(state, at: try reader.read()))
        }
        return history
    }
}
