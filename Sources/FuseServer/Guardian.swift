import CLinux
import Storage
import Synchronization

/// The daemon's side of its guardian: starts it, starts another one when it is gone, and lets it go in the end.
package final class Guardian: Sendable {
    package enum Event: Sendable {
        /// A guardian ended without having been told to; the next one is started.
        case lost(pid: Int32)
        case replaced(pid: Int32)
        /// It could not be started; it is tried again.
        case notStarted(errno: Int32)
        /// It was started and ended, or was ended, before it stood: its wait(2) status, and the errno of waiting for it.
        case notReady(status: Int32, errno: Int32)
    }

    private let page: GuardianPage
    // A duplicate, so that its number means the same for as long as guardians are started.
    private let device: Int32
    private let mountPoint: String
    private let connection: KernelConnection?
    private let onEvent: @Sendable (Event) -> Void
    private let current = Mutex<Running?>(nil)
    private let finished = Atomic<Bool>(false)

    private struct Running {
        let pid: pid_t
        /// Our end of the liveness socket. The watching thread closes it.
        let socket: Int32
    }

    private static let readySeconds: Int = 20
    private static let attempts = 3
    /// So long after it last started one, the next is started.
    private static let pauseMicroseconds: UInt32 = 200_000

    package init(
        _ session: MountSession, page: GuardianPage, mountPoint: String, onEvent: @escaping @Sendable (Event) -> Void
    ) {
        self.page = page
        self.mountPoint = mountPoint
        self.onEvent = onEvent
        device = linux_fcntl_int(session.device, F_DUPFD_CLOEXEC, 16)
        connection = session.connection
    }

    /// The guardian's process; `nil` while there is none.
    package var pid: Int32? { current.withLock { $0?.pid } }

    /// Starts it, and returns when it stands. Call before the session is run. Gives 0 or an errno.
    package func start() -> Int32 {
        var failed: Int32 = 0
        for _ in 0..<Self.attempts {
            failed = spawn()
            guard failed != 0 else {
                return PlainThread.detach { [self] in watch() } ? 0 : EAGAIN
            }
        }
        return failed
    }

    /// When the daemon's keys have to be gone at the latest, in seconds of CLOCK_BOOTTIME; `nil` when it holds none. Past that time by 1.5 s
    /// the guardian kills the daemon and purges the mount: whoever takes longer over a revocation moves the time on meanwhile.
    package func leaseEnds(at seconds: Double?) {
        page.leaseEnd.store(seconds.map { UInt64(max(0, $0) * 1e9) } ?? 0)
    }

    /// The session is over: the guardian purges what programs may still hold, and goes.
    package func finish() {
        finished.store(true, ordering: .sequentiallyConsistent)
        defer { close(device) }
        guard let running = current.withLock({ $0 }) else { return }
        var byte = GuardianDuty.goByte
        _ = send(running.socket, &byte, 1, Int32(MSG_NOSIGNAL))
        for _ in 0..<5000 where current.withLock({ $0?.pid == running.pid }) { usleep(1000) }
    }

    private func spawn() -> Int32 {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            return linux_get_errno()
        }
        // Numbers that the assignments below do not overwrite.
        let sources = [device, ends[1], page.descriptor].map { linux_fcntl_int($0, F_DUPFD_CLOEXEC, 16) }
        close(ends[1])
        defer { for source in sources where source >= 0 { close(source) } }
        guard !sources.contains(where: { $0 < 0 }) else {
            close(ends[0])
            return EMFILE
        }
        var pid: pid_t = 0
        var failed = launch(sources, &pid)
        if failed == 0 {
            var limit = timeval(tv_sec: Self.readySeconds, tv_usec: 0)
            setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            var byte: UInt8 = 0
            var count = recv(ends[0], &byte, 1, 0)
            while count < 0, linux_get_errno() == EINTR { count = recv(ends[0], &byte, 1, 0) }
            if count != 1 || byte != GuardianDuty.readyByte {
                let reason = count < 0 ? linux_get_errno() : 0
                kill(pid, SIGKILL)
                var status: Int32 = 0
                while waitpid(pid, &status, 0) < 0, linux_get_errno() == EINTR {}
                onEvent(.notReady(status: status, errno: reason))
                failed = EIO
            }
        }
        guard failed == 0 else {
            close(ends[0])
            return failed
        }
        var none = timeval(tv_sec: 0, tv_usec: 0)
        setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &none, socklen_t(MemoryLayout<timeval>.size))
        let running = Running(pid: pid, socket: ends[0])
        current.withLock { $0 = running }
        return 0
    }

    /// A new process of this program, never a fork: it gets no memory of ours. Of the environment it gets nothing.
    private func launch(_ sources: [Int32], _ pid: inout pid_t) -> Int32 {
        var words = [CommandLine.arguments.first ?? "lethefs", "guardian", "--daemon", "\(getpid())"]
        if let connection { words += ["--connection", "\(connection.minor)"] }
        words += ["--", mountPoint]
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let targets = [GuardianDuty.device, GuardianDuty.liveness, GuardianDuty.page]
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        for (source, target) in zip(sources, targets) { posix_spawn_file_actions_adddup2(&actions, source, target) }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // POSIX_SPAWN_SETSID of <spawn.h>: no terminal's signals.
        posix_spawnattr_setflags(&attributes, 0x80)
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var environment: [UnsafeMutablePointer<CChar>?] = [nil]
        return posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, &arguments, &environment)
    }

    /// Waits for the guardian's end, again and again.
    private func watch() {
        while let running = current.withLock({ $0 }) {
            var byte: UInt8 = 0
            while recv(running.socket, &byte, 1, 0) < 0, linux_get_errno() == EINTR {}
            var status: Int32 = 0
            while waitpid(running.pid, &status, 0) < 0, linux_get_errno() == EINTR {}
            close(running.socket)
            current.withLock { $0 = nil }
            if finished.load(ordering: .sequentiallyConsistent) { return }
            onEvent(.lost(pid: running.pid))
            replace()
        }
    }

    private func replace() {
        while !finished.load(ordering: .sequentiallyConsistent) {
            let failed = spawn()
            guard failed == 0 else {
                onEvent(.notStarted(errno: failed))
                usleep(Self.pauseMicroseconds)
                continue
            }
            if let pid { onEvent(.replaced(pid: pid)) }
            // One that dies at once, again and again, must not take the machine's time.
            usleep(Self.pauseMicroseconds)
            return
        }
    }
}
