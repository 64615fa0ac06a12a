import CFuse
import CLinux
import Glibc
import Storage
import VolumeEngine

/// A mount: libfuse's session, from mounting to the end of its loop.
package final class MountSession: @unchecked Sendable {
    /// Why there is no mount.
    package enum Failure: Error, Sendable, Equatable {
        /// libfuse refused an option, or could not mount; it has said why on standard error.
        case mountFailed
        case loopFailed(Errno)
    }

    package struct Options: Sendable {
        /// Shown by df and mount as the source.
        package var source = "lethefs"
        package var allowOther = false
        package var readOnly = false
        /// Passed on to mount(2): "nosuid", "noexec" and the like.
        package var extra: [String] = []
        package var threads: UInt32 = 10
        /// Requests by io_uring where the kernel offers it, otherwise by /dev/fuse.
        package var wantsRing = true
        package init() {}
    }

    private let fileSystem: FileSystem
    // Used by the thread that runs the mount; libfuse guards its own inside.
    private let session: OpaquePointer
    private let threads: UInt32
    private let mountPoint: String
    private let onReady: @Sendable (_ unset: [String]) -> Void
    package let kernelCache: KernelCache
    /// The kernel's side of it; `nil` where it cannot be told from the table of mounts.
    package let connection: KernelConnection?

    /// Mounts; `onReady` is called when the kernel has agreed on the protocol, from `run`. `unset`: bounds of the page cache that stay the
    /// kernel's (`PageCacheBounds`), with the reason.
    package init(
        volume: Volume, at mountPoint: String, options: Options,
        onReady: @escaping @Sendable (_ unset: [String]) -> Void
    ) throws(Failure) {
        threads = options.threads
        self.mountPoint = mountPoint
        self.onReady = onReady
        fileSystem = FileSystem(volume: volume)
        var operations = fuse_lowlevel_ops()
        FileSystem.addSession(to: &operations)
        FileSystem.addNames(to: &operations)
        FileSystem.addAttributes(to: &operations)
        FileSystem.addFiles(to: &operations)
        FileSystem.addDirectories(to: &operations)
        let words = Self.arguments(options)
        var pointers: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        defer { for pointer in pointers { free(pointer) } }
        let userData = Unmanaged.passUnretained(fileSystem).toOpaque()
        let made = pointers.withUnsafeMutableBufferPointer { pointers in
            var arguments = fuse_args(argc: Int32(words.count), argv: pointers.baseAddress, allocated: 0)
            defer { fuse_opt_free_args(&arguments) }
            return fuse_session_new(&arguments, &operations, MemoryLayout<fuse_lowlevel_ops>.size, userData)
        }
        guard let made else { throw .mountFailed }
        guard fuse_session_mount(made, mountPoint) == 0 else {
            fuse_session_destroy(made)
            throw .mountFailed
        }
        guard lethefs_install_io(made, options.wantsRing ? 1 : 0) == 0 else {
            fuse_session_unmount(made)
            fuse_session_destroy(made)
            throw .mountFailed
        }
        session = made
        kernelCache = KernelCache(made)
        connection = KernelConnection(mountPoint: mountPoint)
    }

    private static func arguments(_ options: Options) -> [String] {
        var mountOptions = [
            "default_permissions", "subtype=lethefs", "fsname=" + options.source.replacing(",", with: "\\,"),
        ]
        if options.allowOther { mountOptions.append("allow_other") }
        if options.readOnly { mountOptions.append("ro") }
        mountOptions += options.extra
        return ["lethefs", "-o", mountOptions.joined(separator: ",")]
    }

    /// /dev/fuse, as long as the session runs.
    var device: Int32 { fuse_session_fd(session) }

    /// The mount is there still, if only for those who have something open. Once it is not, its number is another mount's.
    private var isConnected: Bool {
        var entry = pollfd(fd: device, events: 0, revents: 0)
        return poll(&entry, 1, 0) == 0
    }

    /// Serves until the mount is taken away or a signal ends it; then unmounts. Returns when no request is under way.
    package func run() throws(Failure) {
        lethefs_set_signal_handlers(session)
        var result = lethefs_session_begin(session)
        // Not before the answer is with the kernel: it looks then whether io_uring is still offered.
        if result != 0 { fuse_session_exit(session) }
        if fuse_session_exited(session) == 0 {
            DescriptorBudget.takeAway(Int(lethefs_transport_descriptors(threads)))
            let unset = connection.map { PageCacheBounds($0).raise() } ?? []
            onReady(unset.map { "\($0.attribute) (\($0.error.message))" })
        }
        let served = lethefs_session_loop(session, threads)
        if result == 0 { result = served }
        fuse_remove_signal_handlers(session)
        // Nobody serves any more: a purge that waits for a request would wait for ever.
        var isIdle = kernelCache.end(withinSeconds: 1)
        if !isIdle {
            if isConnected { connection?.abort() }
            isIdle = kernelCache.end(withinSeconds: 20)
        }
        // It goes by the path, where somebody else's mount may be by now. One whose connection has ended it leaves alone.
        if let connection, isConnected, !connection.isReached(by: mountPoint) { connection.abort() }
        fuse_session_unmount(session)
        // A thread that a program holds up in the kernel (`PatientWork`) has it as long as the process lives.
        if isIdle { fuse_session_destroy(session) }
        if result < 0 { throw .loopFailed(Errno(-result)) }
    }
}

extension FileSystem {
    static func addSession(to operations: inout fuse_lowlevel_ops) {
        operations.`init` = { _, connection in
            guard let connection else { return }
            FileSystem.negotiate(&connection.pointee)
        }
    }

    private static func negotiate(_ connection: inout fuse_conn_info) {
        func want(_ capability: Int) {
            let bit = UInt32(truncatingIfNeeded: capability)
            if connection.capable & bit != 0 { connection.want |= bit }
        }
        func refuse(_ capability: Int) { connection.want &= ~UInt32(truncatingIfNeeded: capability) }
        want(Int(FUSE_CAP_WRITEBACK_CACHE))
        want(Int(FUSE_CAP_POSIX_ACL))
        want(Int(FUSE_CAP_DONT_MASK))
        want(Int(FUSE_CAP_PARALLEL_DIROPS))
        want(Int(FUSE_CAP_CACHE_SYMLINKS))
        want(Int(FUSE_CAP_EXPLICIT_INVAL_DATA))
        want(Int(FUSE_CAP_ATOMIC_O_TRUNC))
        // Listings carry attributes always, not just where the kernel guesses that they are wanted: `DirectoryStream` bounds them.
        refuse(Int(FUSE_CAP_READDIRPLUS_AUTO))
        // The second version is taken in its place; locks between programs are the kernel's own; data is ours to change only.
        refuse(Int(FUSE_CAP_HANDLE_KILLPRIV))
        refuse(Int(FUSE_CAP_POSIX_LOCKS))
        refuse(Int(FUSE_CAP_FLOCK_LOCKS))
        refuse(Int(FUSE_CAP_AUTO_INVAL_DATA))
        connection.max_write = UInt32(RequestBuffer.maximumRequest)
        connection.max_readahead = UInt32(RequestBuffer.maximumRequest)
        connection.max_background = 64
        connection.congestion_threshold = 48
        connection.time_gran = 1
    }
}
