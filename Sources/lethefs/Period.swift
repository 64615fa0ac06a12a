/// A span of time as people write it: `90d`, `12mo`, `2y`.
enum Period {
    private static let units: [(name: String, seconds: UInt64)] = [
        ("y", 365 * 86_400), ("mo", 365 * 86_400 / 12), ("w", 7 * 86_400), ("d", 86_400), ("h", 3600), ("min", 60),
        ("s", 1),
    ]

    /// Seconds; `nil` for what is none.
    static func parse(_ text: String) -> UInt64? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let number = UInt64(digits), let unit = units.first(where: { $0.name == text.dropFirst(digits.count) })
        else { return nil }
        let (seconds, overflow) = number.multipliedReportingOverflow(by: unit.seconds)
        return overflow || seconds == 0 ? nil : seconds
    }

    /// In the largest unit of which it is a whole number.
    static func text(_ seconds: UInt64) -> String {
        for unit in units where seconds >= unit.seconds && seconds % unit.seconds == 0 {
            return "\(seconds / unit.seconds)\(unit.name)"
        }
        return "\(seconds)s"
    }
}
