import Foundation

/// Test vectors as text: `NAME = value` lines, a record for each run of them between blank lines, `[NAME = value]` lines
/// that hold for all records after them, and `#` comments. NIST's response files and the RFCs' collections look like this.
package struct VectorFile {
    package struct Record {
        package var fields: [String: String] = [:]
        /// A line without a value: NIST says FAIL where nothing may come out.
        package var flags: Set<String> = []

        /// The bytes of a field; `nil` when it is missing or not hexadecimal.
        package func bytes(_ name: String) -> [UInt8]? { fields[name].flatMap { Hex.decode($0) } }
        package func number(_ name: String) -> Int? { fields[name].flatMap { Int($0) } }
    }

    package private(set) var records: [Record] = []

    package init(_ url: URL) throws {
        var common: [String: String] = [:]
        var current = Record()
        func finish(_ records: inout [Record]) {
            if !current.fields.isEmpty {
                current.fields.merge(common) { own, _ in own }
                records.append(current)
            }
            current = Record()
        }
        let text = try String(contentsOf: url, encoding: .utf8)
        for raw in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline) {
            let line = raw.trimmingCharacters(in: .whitespaces)
            if line.hasPrefix("#") { continue }
            if line.isEmpty {
                finish(&records)
            } else if line.hasPrefix("[") {
                let (name, value) = Self.pair(line.dropFirst().prefix { $0 != "]" })
                common[name] = value
            } else if line.contains("=") {
                let (name, value) = Self.pair(line[...])
                current.fields[name] = value
            } else {
                current.flags.insert(line)
            }
        }
        finish(&records)
    }

    private static func pair(_ text: Substring) -> (String, String) {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let value = parts.count > 1 ? parts[1].trimmingCharacters(in: .whitespaces) : ""
        return (parts[0].trimmingCharacters(in: .whitespaces), value)
    }
}
