import FuseServer
import Storage

/// What `-o transport=` asks for.
enum TransportChoice: String, CaseIterable {
    /// io_uring where the kernel offers it, otherwise /dev/fuse.
    case auto
    case devFuse = "dev-fuse"
    /// io_uring; the mount fails where it cannot be tried.
    case ring = "io_uring"

    init(option: String) throws {
        guard let choice = Self(rawValue: String(option.dropFirst("transport=".count))) else {
            throw Failure(
                .invalid, "\(option): no such transport", remedy: "-o transport=auto, dev-fuse or io_uring")
        }
        self = choice
    }

    /// Before anything is touched: a transport that was asked for by name, and cannot be had.
    func check() throws {
        guard self == .ring, let obstacle = Transport.probe() else { return }
        throw Failure(
            .mountFailed, "FUSE over io_uring cannot be had: \(obstacle.words)", meaning: "The volume is untouched.",
            remedy: obstacle.remedy ?? "mount without -o transport=io_uring: nothing is lost but speed")
    }
}

extension Transport.Obstacle {
    /// Why requests do not come by io_uring, for people.
    var words: String {
        switch self {
        case .notWanted: "transport=dev-fuse was asked for"
        case .notKnown: "the kernel is older than Linux 6.14, or built without it"
        case .switchedOff: "the kernel has it switched off"
        case .noConnectionControl: "nothing is mounted on /sys/fs/fuse/connections"
        case .noIoUring(let error): "this process may not use io_uring: \(error.message)"
        case .notOffered: "the kernel did not offer it for this mount"
        case .setupFailed(let error): "setting it up failed: \(error.message)"
        }
    }

    /// What to type to have it, where there is something.
    var remedy: String? {
        switch self {
        case .switchedOff:
            "echo Y > \(Transport.switchPath)  as root, then mount again; it holds for all FUSE mounts made after it "
                + "(for good: echo options fuse enable_uring=1 >> /etc/modprobe.d/fuse.conf)"
        case .noConnectionControl: "mount -t fusectl none /sys/fs/fuse/connections  as root, then mount again"
        case .noIoUring(.perm):
            "sysctl kernel.io_uring_disabled=0  as root, then mount again; in a container its system call filter may refuse it"
        case .setupFailed(.again): "raise the limit of locked memory (ulimit -l), then mount again"
        case .setupFailed(.tooManyOpenFiles):
            "raise the limit of open files (ulimit -Hn): each CPU that the machine may have takes 4 to 8, and all a quarter at the most"
        case .notWanted: "mount again without -o transport=dev-fuse"
        case .noIoUring, .notKnown, .notOffered, .setupFailed: nil
        }
    }
}
