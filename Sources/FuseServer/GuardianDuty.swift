import CFuse
import CLinux
import Storage

/// What the guardian process does: waits for the daemon's end, and then takes from the kernel what it holds of the mount.
///
/// A program's descriptors and mappings outlive the daemon, and with them every cached page: after SIGKILL, even after `umount -l`, plaintext
/// stays readable for as long as a program likes. Only /dev/fuse reaches those pages, so somebody has to hold it.
package struct GuardianDuty {
    /// Where the daemon puts them.
    static let device: Int32 = 3
    static let liveness: Int32 = 4
    static let page: Int32 = 5
    /// What the daemon says over the liveness socket, and what it is told when the guardian stands.
    static let goByte = UInt8(ascii: "q")
    static let readyByte = UInt8(ascii: "r")

    private static let rootNode: UInt64 = 1
    private static let tickMilliseconds: Int32 = 250
    /// A daemon that has slept with the machine sees its lease end, as the guardian does; it gets this long to revoke by itself.
    private static let patienceMilliseconds = 1500
    /// For a killed daemon to be gone; one that waits for a lower storage that hangs is not waited for longer.
    private static let deathMilliseconds: Int32 = 1000

    private let daemon: pid_t
    private let mountPoint: String
    /// By which fusectl names the connection.
    private let connection: UInt32?
    private let report: (String) -> Void

    /// `report` writes a line to the daemon's log.
    package init(daemon: pid_t, mountPoint: String, connection: UInt32?, report: @escaping (String) -> Void) {
        self.daemon = daemon
        self.mountPoint = mountPoint
        self.connection = connection
        self.report = report
    }

    /// Returns when the daemon and the mount are gone. False when it could not even begin.
    package func run() -> Bool {
        Self.shed()
        let process = linux_pidfd_open(daemon)
        guard process >= 0, let page = GuardianPage(inherited: Self.page) else { return false }
        var ready = Self.readyByte
        guard send(Self.liveness, &ready, 1, Int32(MSG_NOSIGNAL)) == 1 else { return false }
        switch Self.watch(process, page) {
        case .dismissed: finish(page)
        case .daemonGone: act("the daemon (pid \(daemon)) died", process, page)
        case .leaseOver: act("the daemon (pid \(daemon)) did not end its lease, and was killed", process, page)
        }
        return true
    }

    /// Only the three descriptors and the log's remain; no signal but SIGKILL ends it, no capability is kept.
    private static func shed() {
        var all = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, nil)
        _ = linux_close_from(UInt32(page) + 1)
        chdir("/")
        // The kernel ends it last when memory runs out: the daemon, which is larger, goes before.
        set("oom_score_adj", "-1000")
        // It sleeps until it is needed; then plaintext is readable until it is done.
        lethefs_raise_priority()
        // Its session is a group for the scheduler, with a priority of its own.
        set("autogroup", "-20")
        _ = mlockall(MCL_CURRENT)
        _ = linux_prctl(PR_SET_NO_NEW_PRIVS, 1)
        _ = linux_set_capabilities(0, 0)
    }

    /// Writes to a file of /proc/self, where that is allowed.
    private static func set(_ name: String, _ value: StaticString) {
        let file = linux_open("/proc/self/\(name)", O_WRONLY | O_CLOEXEC, 0)
        guard file >= 0 else { return }
        defer { close(file) }
        _ = write(file, value.utf8Start, value.utf8CodeUnitCount)
    }

    private enum End { case dismissed, daemonGone, leaseOver }

    private static func watch(_ process: Int32, _ page: GuardianPage) -> End {
        var overdueSince: UInt64?
        while true {
            var entries = [
                pollfd(fd: liveness, events: Int16(POLLIN), revents: 0),
                pollfd(fd: process, events: Int16(POLLIN), revents: 0),
            ]
            _ = poll(&entries, 2, tickMilliseconds)
            if entries[0].revents != 0 {
                var byte: UInt8 = 0
                let count = recv(liveness, &byte, 1, Int32(MSG_DONTWAIT))
                if count == 1, byte == goByte { return .dismissed }
                if count == 0 || (count < 0 && ![EAGAIN, EINTR].contains(linux_get_errno())) { return .daemonGone }
            } else if entries[1].revents != 0 {
                return .daemonGone
            }
            let end = page.leaseEnd.value
            guard end != 0, clock(CLOCK_BOOTTIME) > end else {
                overdueSince = nil
                continue
            }
            // Counted while the machine is awake, so that the daemon has had its chance.
            let now = clock(CLOCK_MONOTONIC)
            let since = overdueSince ?? now
            overdueSince = since
            if now - since >= UInt64(patienceMilliseconds) * 1_000_000 { return .leaseOver }
        }
    }

    private static func clock(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// The order matters. First the daemon: it must not answer any more. Then the connection, so that nothing waits for an answer: a page
    /// that a read under way has locked, and a dirty page that the purge would have written first, would hold it up for ever. Then the pages.
    private func act(_ why: String, _ process: Int32, _ page: GuardianPage) {
        let start = Self.clock(CLOCK_MONOTONIC)
        _ = linux_pidfd_kill(process)
        let outcome = endConnection()
        guard outcome != .mountIsGone else { return report("guardian: \(why); the mount was gone before") }
        var entry = pollfd(fd: process, events: Int16(POLLIN), revents: 0)
        // Of an aborted connection no reply is taken any more. Otherwise the daemon may be sending one as it dies.
        let mayAnswer = outcome == .refusing && poll(&entry, 1, Self.deathMilliseconds) == 0
        var nodes = purge(page)
        if poll(&entry, 1, Self.deathMilliseconds) == 0 {
            report("guardian: the daemon (pid \(daemon)) hangs in the kernel and cannot be ended yet")
        }
        if mayAnswer { nodes = max(nodes, purge(page)) }
        let milliseconds = (Self.clock(CLOCK_MONOTONIC) - start) / 1_000_000
        report("guardian: \(why); connection ended, \(nodes) nodes purged in \(milliseconds) ms: \(mountPoint)")
    }

    /// The daemon has ended in order. Of a mount that is gone nothing is left to purge; SIGTERM leaves open files and mappings behind.
    private func finish(_ page: GuardianPage) {
        guard endConnection() != .mountIsGone else { return }
        let nodes = purge(page)
        report("guardian: the daemon ended while programs used the mount; \(nodes) nodes purged: \(mountPoint)")
    }

    private enum ConnectionEnd { case mountIsGone, aborted, refusing }

    /// Sees to it that nothing waits for an answer any more: by fusectl, whose file belongs to who mounted; where that is not to be had, by
    /// answering all requests with an error. (Those that the daemon had taken end with its descriptors.)
    private func endConnection() -> ConnectionEnd {
        var file: Int32 = -1
        if let connection {
            file = linux_open("/sys/fs/fuse/connections/\(connection)/abort", O_WRONLY | O_CLOEXEC, 0)
        }
        defer { if file >= 0 { close(file) } }
        // No page is asked for, so nothing can hold this up. That the mount is there now tells, too, that the file opened before is its own:
        // the number is given to another mount once this one is gone.
        guard lethefs_device_knows(Self.device, Self.rootNode) == 0 else { return .mountIsGone }
        if file >= 0, write(file, "1", 1) == 1 { return .aborted }
        refuseRequests()
        return .refusing
    }

    /// Answers whatever programs and the kernel still ask for, until the connection is over.
    private func refuseRequests() {
        let size = 2 << 20
        for _ in 0..<2 {
            let buffer = Buffer(address: .allocate(byteCount: size, alignment: 16))
            PlainThread.detach { while lethefs_device_refuse(Self.device, buffer.address, size) != -ENODEV {} }
        }
    }

    private struct Buffer: @unchecked Sendable {
        // Of one thread, for the rest of the process.
        let address: UnsafeMutableRawPointer
    }

    /// Every page, mapping, attribute, listing and name goes. The nodes that the kernel knew.
    private func purge(_ page: GuardianPage) -> Int {
        _ = lethefs_device_expire_names(Self.device)
        let outcome = NodePurge(highest: page.highestNode.value).run(Self.device)
        if outcome.left > 0 {
            report("guardian: a program holds the kernel up; \(outcome.left) nodes are not purged yet: \(mountPoint)")
        }
        return outcome.known
    }
}
