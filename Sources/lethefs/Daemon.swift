import ArgumentParser
import CLinux
import ControlPlane
import FoundationEssentials
import FuseServer
import KeyManagement
import Logging
import Storage
import Synchronization
import VolumeEngine
import VolumeFormat

/// The process that serves a mount.
struct Daemon {
    let request: MountRequest
    /// Where to write "ready", or a failure as JSON.
    let readyFD: Int32?

    init(_ request: MountRequest, readyFD: Int32?) {
        self.request = request
        self.readyFD = readyFD
    }

    func run() throws {
        if let readyFD { _ = linux_fcntl_int(readyFD, F_SETFD, FD_CLOEXEC) }
        do { try serve() } catch let failure as Failure {
            if let readyFD, let body = try? JSONEncoder().encode(failure) {
                FileHandle(descriptor: readyFD).write(String(decoding: body, as: UTF8.self))
                // The command that started this daemon tells it; once is enough.
                throw ExitCode(failure.code.rawValue)
            }
            throw failure
        }
    }

    private func serve() throws {
        linux_bound_heap()
        var warnings = ProcessHardening.apply()
        let descriptors = ProcessHardening.raiseDescriptorLimit()
        DescriptorBudget.set(limit: descriptors)
        warnings += ProcessHardening.dropCapabilities()
        let host = Host()
        let (description, roots) = try trustedRoots(host)
        let log = try openLog(host, description.volume)
        for warning in warnings { log.warning("\(warning)") }

        let damage = DamageLog(log)
        var options = Volume.Options()
        options.readOnly = request.readOnly
        options.handleCapacity = max(64, min(4096, descriptors / 4))
        guard let page = GuardianPage() else {
            throw Failure(.internalError, "no shared memory for the guardian", remedy: "free some memory")
        }
        options.sharedHighestNode = page.highestNode
        let trusted = TrustedRoots(roots)
        let manifest = try host.manifest(description.volume, request)
        let began = ContinuousClock.now
        let mount: VolumeMount
        do {
            mount = try VolumeMount(
                lower: request.lower, options: options,
                unlocking: KeyringUnlocking { (uri) throws(RootError) in try trusted.current.resolve(uri) },
                manifest: manifest
            ) { damage.note($0) }
        } catch { throw Failure(error, lower: request.lower) }
        var record = host.readRecord(description.volume) ?? Host.VolumeRecord(roots: [])
        if !request.roots.isEmpty || roots.names != record.names ?? [:] {
            (record.roots, record.names) = roots.kept
            try host.writeRecord(description.volume, record)
        }
        try host.remember(request, manifest, description.volume)
        mount.describeHolder("pid \(getpid()), on \(request.mountPoint)")
        let unwrapped = ContinuousClock.now - began
        let audit = AuditOpening.open(mount, trusted, host, log)
        try serve(mount, host, trusted, log, damage, page, audit, unwrapped)
    }

    private func serve(
        _ mount: VolumeMount, _ host: Host, _ roots: TrustedRoots, _ log: Logger, _ damage: DamageLog,
        _ page: GuardianPage, _ audit: AuditLog?, _ unwrapped: Duration
    ) throws {
        chdir("/")
        // Whoever started us may have had them ignored; they are how a service manager ends a mount.
        for ending in [SIGHUP, SIGINT, SIGTERM] { linux_default_signal(ending) }
        let readyFD = self.readyFD
        let session: MountSession
        do {
            session = try MountSession(volume: mount.volume, at: request.mountPoint, options: sessionOptions) { unset in
                if !unset.isEmpty {
                    log.info("the page cache keeps the kernel's bounds: \(unset.joined(separator: ", "))")
                }
                guard let readyFD else { return }
                FileHandle(descriptor: readyFD).write("ready")
                close(readyFD)
            }
        } catch {
            try? mount.close()
            throw Failure(
                .mountFailed, "\(request.mountPoint) could not be mounted", meaning: "The volume is untouched.",
                remedy:
                    "the end of \(host.logPath(mount.volume.description.volume)) has fusermount3's reason; allow_other "
                    + "needs root, or user_allow_other in /etc/fuse.conf")
        }
        for (zone, error) in mount.lockedZones {
            log.warning("zone \(zone.rawValue) stays closed: \(Failure(error, lower: request.lower).what)")
        }
        for warning in ProcessHardening.refuseSystemCalls() { log.warning("\(warning)") }
        let guardian = try startGuardian(session, page, log)
        let services = DaemonServices(
            mount: mount, request: request, host: host, roots: roots, log: log, damage: damage, session: session,
            guardian: guardian, audit: audit)
        damage.report(to: audit)
        audit?.noteMount(mount, request, unwrapped)
        audit?.start()
        let control = DaemonControl(services)
        services.keepers.start()
        control.start(log)
        if !request.readOnly {
            let rotation = services.rotation
            PlainThread.detach { rotation.keep() }
            services.cryptoperiods.start()
        }
        let housekeeping = Housekeeping(mount.volume)
        housekeeping.start()
        defer { housekeeping.stop() }
        let keepers = MinuteKeeper.all(mount, log)
        for keeper in keepers { keeper.start() }
        log.notice("mounted \(request.lower) on \(request.mountPoint), epoch \(mount.volume.epoch)")
        let outcome = Result { () throws(MountSession.Failure) in try session.run() }
        guardian.finish()
        services.sweeps.end()
        services.keepers.stop()
        // The programs are gone; what they left open is brought up to date before the volume is called clean.
        mount.volume.settleAll()
        for keeper in keepers { keeper.stop() }
        var failure: Failure?
        do {
            try mount.close { log.warning("\(Failure($0, lower: request.lower).what)") }
        } catch { failure = Failure(error, lower: request.lower) }
        if failure == nil, mount.volume.isDirty {
            failure = notAllStored(host.logPath(mount.volume.description.volume))
        }
        audit?.close((.unmounted, ["clean": failure == nil ? "yes" : "no"]))
        // For `lethefs unmount`, which waits for the end of this process.
        host.runtime.writeEnd(pid: getpid(), failure.flatMap { try? JSONEncoder().encode($0) })
        control.stop()
        if case .failure(let error) = outcome { log.error("the session ended with \(error)") }
        log.notice("unmounted \(request.mountPoint)\(failure == nil ? "" : ", not cleanly")")
        if let failure { throw failure }
    }

    private func notAllStored(_ log: String) -> Failure {
        Failure(
            .storage, "not everything that programs wrote to \(request.mountPoint) could be stored",
            meaning: "What was flushed (fsync) is safe. The next mount takes this one's end for a crash.",
            remedy: "\(log) has the reasons; lethefs check \(request.lower)")
    }

    /// It stands before the first request is answered: nothing is in the kernel's cache before.
    private func startGuardian(_ session: MountSession, _ page: GuardianPage, _ log: Logger) throws -> Guardian {
        let guardian = Guardian(session, page: page, mountPoint: request.mountPoint) { event in
            switch event {
            case .lost(let pid): log.warning("the guardian (pid \(pid)) is gone; another one is started")
            case .replaced(let pid): log.notice("guardian: pid \(pid)")
            case .notReady(let status, let errno):
                log.error("a guardian ended before it stood: wait status \(status), \(Errno(errno).message)")
            case .notStarted(let errno): log.error("no guardian: \(Errno(errno).message)")
            }
        }
        let failed = guardian.start()
        guard failed == 0 else {
            // The end of this process ends the connection; nothing was served.
            session.connection?.abort()
            throw Failure(
                .mountFailed, "the guardian could not be started: \(Errno(failed).message)",
                meaning: "Without it a crash would leave plaintext readable, so nothing is served.",
                remedy: "umount \(request.mountPoint); see the log; /proc has to be mounted")
        }
        return guardian
    }

    private var sessionOptions: MountSession.Options {
        var options = MountSession.Options()
        options.source = request.lower
        options.allowOther = request.allowOther
        options.readOnly = request.readOnly
        options.extra = request.extra
        options.wantsRing = request.transport != .devFuse
        return options
    }

    /// The volume's description, and the root URIs to try: those given, else those this host remembers.
    private func trustedRoots(_ host: Host) throws -> (VolumeDescription, Roots) {
        let description: VolumeDescription
        let keyring: ZoneKeyring
        do {
            let files = try VolumeFiles(lower: request.lower)
            description = try files.readDescription().value
            keyring = try files.keyring(.root)
            if let roots = try Roots.of(files, given: request.roots, host.readRecord(description.volume)) {
                return (description, roots)
            }
        } catch let error as VolumeError { throw Failure(error, lower: request.lower) }
        let named = keyring.cmks.map { "  " + $0.uri }.joined(separator: "\n")
        throw Failure(
            .keyNotFound, "this host does not know the CMK of \(request.lower)",
            meaning:
                "The volume itself names\n\(named)\n  but what a lower directory says is not trusted to load a module.",
            remedy:
                "lethefs mount \(request.lower) \(request.mountPoint) --root 'URI'  once: the above if it is yours, "
                + "with pin-source=FILE where the token wants a PIN"
        )
    }

    private func openLog(_ host: Host, _ volume: UniqueID) throws -> Logger {
        try host.makeDirectory("log")
        let toStandardError = readyFD == nil
        guard let file = LogFile(path: host.logPath(volume)) else {
            throw Failure(.storage, "opening \(host.logPath(volume)): \(Errno.current.message)")
        }
        if !toStandardError { dup2(file.descriptor, 2) }
        return Logger(label: "lethefs") { _ in LogFileHandler(file: file, alsoStandardError: toStandardError) }
    }
}
