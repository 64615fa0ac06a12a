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
    // Not Foundation's Process, which reads behind a buffer of its own: the address sanitizer ends the run there.
    var words: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    var child: pid_t = 0
    guard posix_spawn(&child, path, nil, nil, &words, environ) == 0 else { throw POSIXError(.EIO) }
    var status: Int32 = 0
    while waitpid(child, &status, 0) < 0 { guard errno == EINTR else { throw POSIXError(.EIO) } }
    guard status == 0 else { throw POSIXError(.EIO) }
}

/// Copies a tree as it is: owners, times, links, holes and attributes.
package func copyTree(_ source: String, to target: String) throws {
    try runProgram("/bin/cp", ["-a", "--sparse=always", source, target])
}

package func readText(_ path: String) throws -> String { try String(contentsOfFile: path, encoding: .utf8) }

package func writeText(_ text: String, to path: String) throws {
    try text.write(toFile: path, atomically: true, encoding: .utf8)
}
