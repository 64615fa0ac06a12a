import CLinux
import FoundationEssentials

/// Text as the audit log has it: one encoding only, so that a line can be compared byte for byte.
package enum AuditText {
    /// A JSON string. Control characters and those that turn the direction of text are escaped: lines are safe on a terminal.
    package static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x22, 0x5C:
                result.append("\\")
                result.unicodeScalars.append(scalar)
            case 0..<0x20, 0x7F..<0xA0, 0x200E, 0x200F, 0x2028..<0x202F, 0x2066..<0x206A:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    /// The same without the quotation marks.
    package static func plain(_ text: String) -> String { String(quoted(text).dropFirst().dropLast()) }

    static func hex(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef")
        return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }

    /// `nil` unless it is `count` bytes in lowercase digits.
    static func bytes(hex text: String, count: Int) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count == 2 * count else { return nil }
        var result: [UInt8] = []
        for index in 0..<count {
            guard let high = value(digits[2 * index]), let low = value(digits[2 * index + 1]) else { return nil }
            result.append(high << 4 | low)
        }
        return result
    }

    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
        default: nil
        }
    }

    /// At most `limit` bytes of UTF-8; what is cut off leaves an ellipsis.
    static func bounded(_ text: String, _ limit: Int) -> String {
        guard text.utf8.count > limit else { return text }
        var result = String.UnicodeScalarView()
        var count = 3
        for scalar in text.unicodeScalars {
            count += UTF8.width(scalar)
            if count > limit { break }
            result.append(scalar)
        }
        return String(result) + "…"
    }
}

/// Times of the log: UTC, ISO 8601 with milliseconds. They sort as text.
package enum AuditTime {
    /// The clock's time now.
    package static func now() -> String {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return text(seconds: time.tv_sec, milliseconds: time.tv_nsec / 1_000_000)
    }

    package static func text(seconds: Int, milliseconds: Int = 0) -> String {
        var seconds = seconds
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func digits(_ value: some BinaryInteger, _ count: Int) -> String {
            let text = String(value)
            return String(repeating: "0", count: max(0, count - text.count)) + text
        }
        let date = "\(digits(parts.tm_year + 1900, 4))-\(digits(parts.tm_mon + 1, 2))-\(digits(parts.tm_mday, 2))"
        return "\(date)T\(digits(parts.tm_hour, 2)):\(digits(parts.tm_min, 2)):\(digits(parts.tm_sec, 2))"
            + ".\(digits(milliseconds, 3))Z"
    }

    /// What an operator types: the beginning of such a time (`2027-01-31`, `2027-01-31T12:30`), or an age (`90s`, `15m`, `2h`,
    /// `7d`). As a text that all times from then on are not less than; `nil` for anything else.
    package static func parse(since text: String) -> String? {
        let units: [Character: Int] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
        if let unit = text.last.flatMap({ units[$0] }), let count = Int(text.dropLast()),
            (0...1_000_000).contains(count)
        {
            return self.text(seconds: time(nil) - count * unit)
        }
        let pattern = Array("0000-00-00T00:00:00.000Z")
        guard [10, 13, 16, 19, 20, 23, 24].contains(text.count) else { return nil }
        let trimmed = text.count == 20 && text.hasSuffix("Z") ? String(text.dropLast()) : text
        for (character, wanted) in zip(trimmed, pattern) {
            guard wanted == "0" ? ("0"..."9").contains(character) : character == wanted else { return nil }
        }
        return trimmed
    }
}

/// Base64 with padding (RFC 4648 §4), as openssl(1) takes it.
package enum Base64 {
    package static func encode(_ bytes: [UInt8]) -> String { Data(bytes).base64EncodedString() }
    package static func decode(_ text: String) -> [UInt8]? { Data(base64Encoded: text).map(Array.init) }
}
