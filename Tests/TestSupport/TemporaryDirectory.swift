import Foundation

/// A directory of a test's own, removed with it.
package final class TemporaryDirectory: Sendable {
    package let path: String

    /// `inMemory`: on tmpfs where there is one, for tests of many short flushes.
    package init(inMemory: Bool = false) throws {
        let roots = (inMemory ? ["/dev/shm"] : []) + [NSTemporaryDirectory()]
        let root = roots.first { access($0, W_OK) == 0 } ?? "/tmp"
        var template = Array((root + "/lethefs-test-XXXXXX").utf8CString)
        guard
            let made = template.withUnsafeMutableBufferPointer({ buffer in buffer.baseAddress.flatMap { mkdtemp($0) } })
        else { throw POSIXError(.EIO) }
        path = String(cString: made)
    }

    package subscript(_ name: String) -> String { path + "/" + name }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// Runs a program of the system to its end; throws unless it exits with 0.
package func runProgram(_ path: String, _ arguments: [String]) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw POSIXError(.EIO) }
}

/// Copies a tree as it is: owners, times, links, holes and attributes.
package func copyTree(_ source: String, to target: String) throws {
    try runProgram("/bin/cp", ["-a", "--sparse=always", source, target])
}

package func readText(_ path: String) throws -> String { try String(contentsOfFile: path, encoding: .utf8) }

package func writeText(_ text: String, to path: String) throws {
    try text.write(toFile: path, atomically: true, encoding: .utf8)
}
