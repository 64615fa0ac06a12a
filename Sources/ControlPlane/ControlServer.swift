import CLinux
import FoundationEssentials
import Storage
import Synchronization

/// The daemon's socket: answers requests of the same user, or root, each connection on a thread of its own.
package final class ControlServer: Sendable {
    private let listener: Int32
    private let answer: @Sendable (ControlRequest) -> Data
    private let stopped = Atomic<Bool>(false)
    private let connections = Atomic<Int>(0)
    // Of these, those that are not urgent and are being answered.
    private let ordinary = Atomic<Int>(0)
    /// For the request to come in, and the answer to go out; what lies between takes as long as it needs.
    private static let timeoutSeconds = 5
    /// Connections served at a time; more are closed at once. Requests that are not urgent may hang, and get so many of them.
    private static let maximumConnections = 40
    private static let maximumOrdinary = 32

    /// Listens at `path`; `nil` when that cannot be done.
    package init?(path: String, answer: @escaping @Sendable (ControlRequest) -> Data) {
        guard let address = SocketAddress(path) else { return nil }
        let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard listener >= 0 else { return nil }
        unlink(path)
        guard address.with({ linux_bind(listener, $0, $1) }) == 0, chmod(path, 0o600) == 0, listen(listener, 16) == 0
        else {
            close(listener)
            return nil
        }
        self.listener = listener
        self.answer = answer
    }

    /// Serves until `stop`. False where no thread can be had for it.
    package func start() -> Bool {
        PlainThread.detach { [self] in
            while !stopped.load(ordering: .acquiring) {
                let connection = linux_accept(listener)
                guard connection >= 0 else {
                    if [EINTR, ECONNABORTED].contains(linux_get_errno()) { continue }
                    if [EMFILE, ENFILE, ENOMEM, ENOBUFS].contains(linux_get_errno()) {
                        usleep(100_000)
                        continue
                    }
                    break
                }
                guard connections.add(1, ordering: .relaxed).newValue <= Self.maximumConnections else {
                    connections.subtract(1, ordering: .relaxed)
                    close(connection)
                    continue
                }
                let serving: @Sendable () -> Void = { [self] in
                    serve(connection)
                    close(connection)
                    connections.subtract(1, ordering: .relaxed)
                }
                // A revocation does not wait until threads can be had again.
                if !PlainThread.detach(serving) { serving() }
            }
            close(listener)
        }
    }

    package func stop() {
        stopped.store(true, ordering: .releasing)
        shutdown(listener, Int32(SHUT_RDWR))
    }

    private func serve(_ connection: Int32) {
        var limit = timeval(tv_sec: Self.timeoutSeconds, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
        setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, size)
        guard Self.isTrusted(connection),
            let line = Line.read(connection, limit: ControlRequest.maximumSize),
            let request = try? JSONDecoder().decode(ControlRequest.self, from: line)
        else { return }
        guard !ControlVerb.urgent.contains(request.verb) else { return Line.write(connection, answer(request)) }
        defer { ordinary.subtract(1, ordering: .relaxed) }
        guard ordinary.add(1, ordering: .relaxed).newValue <= Self.maximumOrdinary else { return }
        Line.write(connection, answer(request))
    }

    /// The peer is root, or who runs this daemon.
    private static func isTrusted(_ connection: Int32) -> Bool {
        var peer = ucred()
        var size = socklen_t(MemoryLayout<ucred>.size)
        guard getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 else { return false }
        return peer.uid == 0 || peer.uid == geteuid()
    }
}

/// A command's side of the socket.
package enum ControlClient {
    /// Longest answer that a command reads.
    private static let maximumAnswer = 4 << 20

    /// Sends a request and returns the answer; `nil` when no daemon answers within `timeoutSeconds`.
    package static func ask(_ path: String, _ request: ControlRequest, timeoutSeconds: Int = 30) -> Data? {
        guard let address = SocketAddress(path) else { return nil }
        let connection = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard connection >= 0 else { return nil }
        defer { close(connection) }
        var limit = timeval(tv_sec: timeoutSeconds, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
        setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, size)
        guard address.with({ linux_connect(connection, $0, $1) }) == 0, let body = try? JSONEncoder().encode(request)
        else {
            return nil
        }
        Line.write(connection, body)
        return Line.read(connection, limit: maximumAnswer)
    }
}

/// A Unix socket's address. A path that is too long for one (107 bytes) is reached by its directory's descriptor.
private struct SocketAddress: ~Copyable {
    private var address = sockaddr_un()
    private let directory: Int32

    init?(_ path: String) {
        var bytes = Array(path.utf8)
        var directory: Int32 = -1
        if bytes.count >= MemoryLayout.size(ofValue: address.sun_path) {
            guard let slash = bytes.lastIndex(of: UInt8(ascii: "/")) else { return nil }
            let parent = String(decoding: bytes[..<slash], as: UTF8.self)
            directory = linux_open(parent, Int32(LINUX_O_PATH) | O_DIRECTORY | O_CLOEXEC, 0)
            guard directory >= 0 else { return nil }
            bytes = Array("/proc/self/fd/\(directory)".utf8) + bytes[slash...]
            guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
                close(directory)
                return nil
            }
        }
        self.directory = directory
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    }

    borrowing func with<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
        withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    deinit { if directory >= 0 { close(directory) } }
}

/// JSON objects, one a line.
private enum Line {
    static func read(_ connection: Int32, limit: Int) -> Data? {
        var collected: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while collected.count <= limit {
            let count = recv(connection, &chunk, chunk.count, 0)
            if count < 0, linux_get_errno() == EINTR { continue }
            guard count > 0 else { return nil }
            collected += chunk[..<count]
            if collected.last == UInt8(ascii: "\n") { return Data(collected.dropLast()) }
        }
        return nil
    }

    static func write(_ connection: Int32, _ body: Data) {
        let bytes = Array(body) + [UInt8(ascii: "\n")]
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { raw in
                send(connection, raw.baseAddress.map { $0 + done }, bytes.count - done, Int32(MSG_NOSIGNAL))
            }
            if count < 0, linux_get_errno() == EINTR { continue }
            guard count > 0 else { return }
            done += count
        }
    }
}
