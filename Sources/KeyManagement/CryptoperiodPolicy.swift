import VolumeFormat

/// How long keys of each type may be used to protect new data (their originator-usage period, SP 800-57 Part 1 §5.3), and what
/// follows. It is a part of the volume's description (FORMAT §8).
package struct CryptoperiodPolicy: Equatable, Sendable {
    package enum KeyType: String, Sendable, Codable, CaseIterable {
        case cmk, kek, dek
    }

    private static let day: UInt64 = 86_400
    package static let year: UInt64 = 365 * day
    /// Shorter ones would rotate all the time; longer ones are none.
    package static let bounds: ClosedRange<UInt64> = 10...(100 * year)
    package static let defaultWarning: UInt64 = 30 * day

    /// Seconds by key type; a type that is not there has no period. Links' metadata keys go with the KEK.
    package var periods: [KeyType: UInt64] = [:]
    /// Seconds before the end of a period from which on it is told.
    package var warning: UInt64 = defaultWarning
    /// What is rotated without anybody's doing. CMKs are not: that takes the right to generate keys in the token.
    package var automatic: Set<KeyType> = []
    /// Goes up with each change.
    package var revision: UInt64 = 0

    package init(periods: [KeyType: UInt64] = [:], automatic: Set<KeyType> = []) {
        self.periods = periods
        self.automatic = automatic
    }

    /// SP 800-57 Part 1 Rev. 5, §5.3.6, table 1: at most two years for symmetric data-encryption, key-wrapping, and private
    /// key-transport keys.
    package static let sp80057 = CryptoperiodPolicy(periods: [.cmk: 2 * year, .kek: 2 * year, .dek: 2 * year])
    /// PCI DSS v4.0.1, 3.7.4 wants a defined period for each type and leaves its length to the owner; a year is the usual choice.
    package static let pciDSS = CryptoperiodPolicy(periods: [.cmk: year, .kek: year, .dek: year])
    package static let none = CryptoperiodPolicy()

    package var isNone: Bool { periods.isEmpty }
    package var shortest: UInt64? { periods.values.min() }

    /// Why a policy cannot be; `nil` when it can.
    package var fault: String? {
        for (type, period) in periods where !Self.bounds.contains(period) {
            return "the period of \(type.rawValue)s is not between 10 seconds and 100 years"
        }
        if automatic.contains(.cmk) {
            return "CMKs are not rotated automatically: that takes the right to generate keys in the token"
        }
        for type in automatic where periods[type] == nil {
            return "automatic rotation of \(type.rawValue)s needs a period for them"
        }
        if let shortest, warning > shortest / 2 {
            return "the warning has to come in the second half of the shortest period"
        }
        return nil
    }

    /// So often the DEKs of files are counted, and rotations that failed tried again: at most daily.
    package var interval: UInt64 { max(1, min(Self.day, (shortest ?? .max) / 10)) }
}

extension CryptoperiodPolicy {
    private static let settings: [(KeyType, VolumeSetting)] = [
        (.dek, .dekPeriod), (.kek, .kekPeriod), (.cmk, .cmkPeriod),
    ]
    private static let bits: [(KeyType, UInt64)] = [(.kek, 1), (.dek, 2)]

    /// As a volume's description has it. Values that make no sense count as the nearest that do.
    package init(_ description: [VolumeSetting: UInt64]) {
        for (type, setting) in Self.settings {
            periods[type] = description[setting].map { min(max($0, Self.bounds.lowerBound), Self.bounds.upperBound) }
        }
        warning = min(description[.warnPeriod] ?? Self.defaultWarning, (shortest ?? .max) / 2)
        for (type, bit) in Self.bits where (description[.automaticRotation] ?? 0) & bit != 0 && periods[type] != nil {
            automatic.insert(type)
        }
        revision = description[.policyRevision] ?? 0
    }

    /// Writes the policy into a description; the other settings stay.
    package func store(in description: inout [VolumeSetting: UInt64]) {
        for (type, setting) in Self.settings { description[setting] = periods[type] }
        description[.warnPeriod] = isNone ? nil : warning
        let bits = Self.bits.reduce(UInt64(0)) { $0 | (automatic.contains($1.0) ? $1.1 : 0) }
        description[.automaticRotation] = bits == 0 ? nil : bits
        description[.policyRevision] = revision == 0 ? nil : revision
    }
}
