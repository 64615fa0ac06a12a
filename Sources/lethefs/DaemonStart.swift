import CLinux
import FoundationEssentials

/// Starts the daemon as a process of its own, and waits until the mount answers or the daemon says why not.
///
/// It is a new process from the start, not a fork of this one: PKCS#11 modules and threads do not survive a fork.
enum DaemonStart {
    private static let timeoutSeconds: Int32 = 120

    static func start(_ request: MountRequest) throws {
        var pipeEnds: [Int32] = [-1, -1]
        guard pipe2(&pipeEnds, O_CLOEXEC) == 0 else { throw Failure(.internalError, "no pipe") }
        defer { close(pipeEnds[0]) }
        let pid = try spawn(request, ready: pipeEnds[1])
        close(pipeEnds[1])
        let answer = try waitForAnswer(pipeEnds[0], pid)
        if answer.isEmpty {
            throw Failure(
                .mountFailed, "the daemon ended before the mount answered",
                remedy: "run it with --foreground to see why")
        }
        if answer != "ready" {
            throw (try? JSONDecoder().decode(Failure.self, from: Data(answer.utf8)))
                ?? Failure(.mountFailed, "the daemon said: \(answer)")
        }
    }

    private static func spawn(_ request: MountRequest, ready: Int32) throws -> pid_t {
        var words = ["/proc/self/exe", "mount", "--foreground", "--ready-fd", "3"]
        for option in request.rawOptions { words += ["-o", option] }
        for root in request.roots { words += ["--root", root] }
        words += [request.lower, request.mountPoint]
        // The name that ps shows; the file is this very program.
        words[0] = CommandLine.arguments.first ?? "lethefs"
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, ready, 3)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSID_VALUE))
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var pid: pid_t = 0
        let failed = posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, &arguments, linux_environment())
        guard failed == 0 else {
            throw Failure(.internalError, "starting the daemon: \(String(cString: strerror(failed)))")
        }
        return pid
    }

    /// What the daemon writes before it closes the pipe; a hint on standard error when it takes long.
    private static func waitForAnswer(_ descriptor: Int32, _ pid: pid_t) throws -> String {
        var collected: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        var waited: Int32 = 0
        while true {
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let ready = poll(&entry, 1, 2000)
            if ready == 0 {
                waited += 2
                if waited == 2 { FileHandle.standardError.write("lethefs: waiting for the CMK and the kernel…\n") }
                guard waited < timeoutSeconds else {
                    kill(pid, SIGTERM)
                    throw Failure(
                        .rootUnreachable, "the mount did not answer within \(timeoutSeconds) seconds",
                        meaning: "The daemon was ended; the volume is untouched.",
                        remedy: "lethefs mount --foreground … shows how far it comes")
                }
                continue
            }
            if ready < 0, linux_get_errno() == EINTR { continue }
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0, linux_get_errno() == EINTR { continue }
            guard count > 0 else { return String(decoding: collected, as: UTF8.self) }
            collected += chunk[..<count]
        }
    }
}

/// POSIX_SPAWN_SETSID of <spawn.h>.
private let POSIX_SPAWN_SETSID_VALUE = 0x80
