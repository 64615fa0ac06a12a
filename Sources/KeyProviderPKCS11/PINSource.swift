import CLinux
import Glibc
import KeyManagement
import Secrets

/// A secret that several values refer to; wiped when the last lets go.
package final class SharedSecret: Sendable {
    package let buffer: SecretBuffer
    package init(_ buffer: consuming SecretBuffer) { self.buffer = buffer }
}

/// Where a PIN comes from.
package enum PINSource: Sendable {
    /// A file that holds the PIN and perhaps a newline. It is read anew for every login, so that it can be changed.
    case file(String)
    /// A PIN given in the URI itself.
    case value(SharedSecret)

    /// Longest PIN accepted, in bytes.
    static let maximumLength = 255

    /// The PIN. Throws `.pinUnavailable` with the reason.
    func read() throws(RootError) -> SecretBuffer {
        switch self {
        case .file(let path): return try Self.readFile(path)
        case .value(let secret):
            let count = secret.buffer.count
            guard (1...Self.maximumLength).contains(count) else {
                throw RootError(.pinUnavailable, "pin-value is empty or too long")
            }
            var copy = SecretBuffer(count: count)
            secret.buffer.withBytes { source in copy.withMutableBytes { $0.copyMemory(from: source) } }
            return copy
        }
    }

    private static func readFile(_ path: String) throws(RootError) -> SecretBuffer {
        // Not blocking: a FIFO must not hold up the module's thread.
        let file = linux_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0)
        guard file >= 0 else { throw unavailable(path, String(cString: strerror(errno))) }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw unavailable(path, String(cString: strerror(errno))) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw unavailable(path, "not a regular file") }
        guard status.st_uid == geteuid() || status.st_uid == 0 else {
            throw unavailable(path, "owned by user \(status.st_uid), neither by us nor by root")
        }
        guard status.st_mode & 0o077 == 0 else {
            throw unavailable(path, "readable by others: its mode has to be 0600 or 0400")
        }
        // Room for the newline and for one byte too many, which tells a long file from a good one.
        var buffer = SecretBuffer(count: maximumLength + 2)
        let count = buffer.withMutableBytes { output in
            var count = 0
            while count < output.count {
                let got = Glibc.read(file, output.baseAddress.map { $0 + count }, output.count - count)
                if got < 0, errno == EINTR { continue }
                if got <= 0 { return got < 0 ? -1 : count }
                count += got
            }
            return count
        }
        guard count >= 0 else { throw unavailable(path, "cannot be read") }
        let length = buffer.withBytes { bytes in
            var length = count
            while length > 0, bytes[length - 1] == UInt8(ascii: "\n") || bytes[length - 1] == UInt8(ascii: "\r") {
                length -= 1
            }
            return length
        }
        guard (1...maximumLength).contains(length) else { throw unavailable(path, "empty or too long") }
        buffer.truncate(to: length)
        return buffer
    }

    private static func unavailable(_ path: String, _ reason: String) -> RootError {
        RootError(.pinUnavailable, "pin-source \(path): \(reason)")
    }
}
