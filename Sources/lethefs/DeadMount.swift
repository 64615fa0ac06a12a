import CLinux
import ControlPlane
import FoundationEssentials

/// What a daemon that died leaves on its mount point.
///
/// The guardian ends the connection and purges, and leaves the dead mount where it is: programs that go on by path get ENOTCONN, instead of
/// writing plaintext into the directory below. The next `lethefs mount` or `unmount` takes it away.
enum DeadMount {
    /// For a guardian to be done.
    private static let patienceSeconds = 15.0
    private static let lookSeconds = 1.0

    /// Takes dead mounts off a mount point. What lives there, or does not answer, stays.
    static func clear(_ path: String) throws {
        guard let mountPoint = MountTable.named(path) else { return }
        let deadline = BootClock.now + patienceSeconds
        while MountTable.all().contains(where: { $0.mountPoint == mountPoint }), BootClock.now < deadline {
            if Host().runtime.records().contains(where: { $0.mountPoint == mountPoint }) { return }
            switch look(mountPoint) {
            case 0: return
            case ENOTCONN: try detach(mountPoint)
            default: usleep(50_000)
            }
        }
    }

    /// The errno of statfs(2), which every mount that lives answers; -1 when nothing comes back.
    private static func look(_ mountPoint: String) -> Int32 {
        Deadline.run(seconds: lookSeconds) {
            var info = statfs()
            return statfs(mountPoint, &info) == 0 ? 0 : linux_get_errno()
        } ?? -1
    }

    private static func detach(_ mountPoint: String) throws {
        // UMOUNT_NOFOLLOW
        if geteuid() == 0, umount2(mountPoint, Int32(MNT_DETACH) | 8) == 0 { return }
        let words = ["fusermount3", "-u", "-z", "-q", "--", mountPoint]
        var pid: pid_t = 0
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var status: Int32 = 1
        if posix_spawnp(&pid, "fusermount3", nil, nil, &arguments, linux_environment()) == 0 {
            while waitpid(pid, &status, 0) < 0, linux_get_errno() == EINTR {}
        }
        guard status == 0 else {
            throw Failure(
                .mountFailed, "a mount whose daemon died is in the way on \(mountPoint), and cannot be taken off",
                meaning: "It belongs to another user.", remedy: "umount -l \(mountPoint), as its owner or root")
        }
    }
}
