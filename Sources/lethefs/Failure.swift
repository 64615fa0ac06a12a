import ArgumentParser
import CLinux
import FoundationEssentials

/// What a command says when it cannot go on: what happened, what it means for the data, what to type next.
struct Failure: Error, Codable, Equatable {
    /// Stable; docs/COMMANDS.md lists them.
    enum Code: Int32, Codable {
        case damageFound = 1
        case incomplete = 2
        case notVolume = 10
        case alreadyVolume = 11
        case inUse = 12
        case unknownFormat = 13
        case notAuthentic = 14
        case auditMissing = 15
        case pin = 20
        case module = 21
        case keyNotFound = 22
        case keyRefused = 23
        case rootUnreachable = 24
        case rootFailed = 25
        case mountFailed = 30
        case notMounted = 31
        case storage = 40
        case stillNeeded = 41
        case unfinished = 42
        case invalid = 64
        case internalError = 70
    }

    var code: Code
    var what: String
    var meaning: String?
    var remedy: String?

    init(_ code: Code, _ what: String, meaning: String? = nil, remedy: String? = nil) {
        self.code = code
        self.what = what
        self.meaning = meaning
        self.remedy = remedy
    }

    /// Writes the message to standard error.
    func report() {
        var lines = ["lethefs: \(what)"]
        if let meaning { lines.append("  \(meaning)") }
        if let remedy { lines.append("  → \(remedy)") }
        FileHandle.standardError.write(lines.joined(separator: "\n") + "\n")
    }
}

/// Runs a command's body; a `Failure` becomes its message and its exit code.
func reporting(_ body: () throws -> Void) throws {
    do { try body() } catch let failure as Failure {
        failure.report()
        throw ExitCode(failure.code.rawValue)
    }
}

/// Standard output and error, unbuffered.
struct FileHandle {
    let descriptor: Int32
    static let standardOutput = FileHandle(descriptor: 1)
    static let standardError = FileHandle(descriptor: 2)

    func write(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { CLinux.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, linux_get_errno() == EINTR { continue }
            guard count > 0 else { return }
            bytes = bytes.dropFirst(count)
        }
    }
}

/// Prints a value as JSON, keys sorted, dates in ISO 8601.
func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.dateEncodingStrategy = .iso8601
    FileHandle.standardOutput.write(String(decoding: try encoder.encode(value), as: UTF8.self) + "\n")
}
