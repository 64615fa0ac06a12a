import CFuse
import CLinux
import Storage

/// How the kernel's requests reach the daemon.
package enum Transport: String, Sendable {
    case devFuse = "dev-fuse"
    case ring = "io_uring"

    /// Why requests do not come by io_uring.
    package enum Obstacle: Sendable, Equatable {
        /// `transport=dev-fuse` was asked for.
        case notWanted
        /// The kernel is older than Linux 6.14, or built without it.
        case notKnown
        /// The module parameter reads N.
        case switchedOff
        /// fusectl is not mounted, by which a guardian ends the connection of a daemon that died.
        case noConnectionControl
        /// This process may not use io_uring.
        case noIoUring(Errno)
        case notOffered
        /// Rings, memory or threads could not be had.
        case setupFailed(Errno)

        fileprivate init?(_ reason: Int32, _ error: Int32) {
            switch UInt32(bitPattern: reason) {
            case LETHEFS_RING_USED.rawValue: return nil
            case LETHEFS_RING_NOT_WANTED.rawValue: self = .notWanted
            case LETHEFS_RING_NOT_KNOWN.rawValue: self = .notKnown
            case LETHEFS_RING_SWITCHED_OFF.rawValue: self = .switchedOff
            case LETHEFS_RING_NO_FUSECTL.rawValue: self = .noConnectionControl
            case LETHEFS_RING_NO_IO_URING.rawValue: self = .noIoUring(Errno(error))
            case LETHEFS_RING_SETUP_FAILED.rawValue: self = .setupFailed(Errno(error))
            default: self = .notOffered
            }
        }
    }

    /// The module parameter that offers FUSE over io_uring to all new mounts of this host.
    package static let switchPath = "/sys/module/fuse/parameters/enable_uring"

    /// What stands in the way on this host; `nil` when it can be tried.
    package static func probe() -> Obstacle? {
        var error: Int32 = 0
        let reason = lethefs_ring_probe(&error)
        return Obstacle(reason, error)
    }
}

extension MountSession {
    /// How requests come, and why not by io_uring. Settled when the mount is ready.
    package var transport: (Transport, Transport.Obstacle?) {
        var error: Int32 = 0
        let reason = lethefs_transport(&error)
        guard let obstacle = Transport.Obstacle(reason, error) else { return (.ring, nil) }
        return (.devFuse, obstacle)
    }
}
