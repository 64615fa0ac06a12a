import CPKCS11
import KeyManagement
import Secrets

/// One PKCS#11 library in this process: its thread, its initialisation, its sessions.
///
/// All mutable state belongs to the module's own thread; callers reach it through `perform` alone.
final class Module: @unchecked Sendable {
    let path: String
    private let worker: Worker
    /// This process was forked from one that may have initialised the library.
    private let isInForkedChild: Bool

    // From here on: the module's thread only.
    private var library: UnsafeMutableRawPointer?
    private var started: (start: ModuleStart, cryptoki: Cryptoki)?
    private var everStarted: Set<ModuleStart> = []
    private var sessions: [PKCS11URI.TokenAttributes: Session] = [:]
    private let rejectedPINs: RejectedPINs

    init(path: String, isInForkedChild: Bool) throws(RootError) {
        self.path = path
        self.isInForkedChild = isInForkedChild
        rejectedPINs = RejectedPINs()
        worker = try Worker()
    }

    /// How often `perform` may begin anew.
    enum Recovery: Sendable {
        /// The work can be repeated: a lost session is opened again, then the module is initialised again.
        case repeating
        /// The session is made good first; then the work runs once.
        case once
    }

    /// Runs `body` on the module's thread in a logged-in session on the target's token.
    func perform<R: ~Copyable & Sendable>(
        on target: Target, timeoutSeconds: Double, recovery: Recovery = .repeating,
        _ body: @escaping @Sendable (Session) throws(Failure) -> R
    ) throws(RootError) -> R {
        try worker.run(timeoutSeconds: timeoutSeconds) { () throws(RootError) -> R in
            defer { if self.started?.cryptoki.quirks.isFinalizedAfterUse == true { self.finalize() } }
            do throws(Failure) {
                return try self.performHere(on: target, recovery, body)
            } catch {
                throw error.root
            }
        }
    }

    /// Runs `body` with the library started by `start` and nothing else open; the module is finalised afterwards.
    func performAlone<R: ~Copyable & Sendable>(
        _ start: ModuleStart, timeoutSeconds: Double, _ body: @escaping @Sendable (Cryptoki) throws(Failure) -> R
    ) throws(RootError) -> R {
        try worker.run(timeoutSeconds: timeoutSeconds) { () throws(RootError) -> R in
            defer { self.finalize() }
            do throws(Failure) {
                self.finalize()
                return try body(try self.ready(start))
            } catch {
                throw error.root
            }
        }
    }

    private func performHere<R: ~Copyable & Sendable>(
        on target: Target, _ recovery: Recovery, _ body: (Session) throws(Failure) -> R
    ) throws(Failure) -> R {
        // What is done once must not go by what the library has lost.
        if recovery == .once, started?.cryptoki.quirks.mayLoseObjects == true { finalize() }
        var isFresh = started == nil
        // Three attempts at the most: with what there is, with a new session, with the library initialised anew.
        for attempt in 0..<3 {
            var isWorking = false
            do {
                let session = try session(on: target)
                if recovery == .once { _ = try session.cryptoki.isUserLoggedIn(session.handle) }
                isWorking = true
                return try body(session)
            } catch {
                let isLast = attempt == 2 || (recovery == .once && isWorking)
                guard error.isRecoverable, !isLast else { throw error }
                // It has been begun anew for this already.
                if error.isMissingKey, isFresh { throw error }
                if attempt == 0, sessions[target.token] != nil, !error.mayNeedRestart {
                    dropSession(target.token)
                } else {
                    finalize()
                    isFresh = true
                }
            }
        }
        throw Failure(.failed, "recovery came to no end")
    }

    private func session(on target: Target) throws(Failure) -> Session {
        let cryptoki = try ready(target.start)
        if let session = sessions[target.token] { return session }
        let (slot, info) = try cryptoki.findToken(target.token)
        let handle = try cryptoki.openSession(slot, writable: false)
        let session = Session(cryptoki: cryptoki, handle: handle, slot: slot, token: info)
        do {
            if info.needsLogin { try login(session, target.pin) }
        } catch {
            try? cryptoki.closeSession(handle)
            throw error
        }
        sessions[target.token] = session
        if info.needsLogin, let configuration = target.start.configuration {
            EmbeddedToken.follow(configuration, serial: info.serial)
        }
        return session
    }

    private func login(_ session: Session, _ source: PINSource?) throws(Failure) {
        guard let source else {
            guard session.token.hasPINPad else {
                throw Failure(
                    .pinUnavailable, "token \"\(session.token.label)\" wants a PIN; the URI has no pin-source")
            }
            return try session.cryptoki.loginOnPINPad(session.handle)
        }
        let pin: SecretBuffer
        do { pin = try source.read() } catch { throw Failure(error) }
        try rejectedPINs.check(pin, session.token)
        do {
            try session.cryptoki.login(session.handle, as: CKU_USER, pin: pin)
        } catch {
            if error.root.code == .pinIncorrect { try rejectedPINs.remember(pin, session.token) }
            throw error
        }
    }

    private func ready(_ start: ModuleStart) throws(Failure) -> Cryptoki {
        if let started {
            if started.start == start { return started.cryptoki }
            finalize()
        }
        do { if let configuration = start.configuration { try EmbeddedToken.mend(configuration) } } catch {
            throw Failure(error)
        }
        let library = try loaded()
        var cryptoki = Cryptoki(
            functions: try ModuleFile.functions(of: library, start.functionList), running: worker.running)
        do {
            try start.initialize(cryptoki, replacing: isInForkedChild)
        } catch {
            guard error.root.code != .timedOut else { throw error }
            // A library that worked before is not missing; what it talks to is.
            throw error.recoded(everStarted.contains(start) ? .unreachable : .moduleUnavailable)
        }
        cryptoki.quirks = ModuleQuirks(try? cryptoki.libraryInfo())
        started = (start, cryptoki)
        everStarted.insert(start)
        return cryptoki
    }

    private func loaded() throws(Failure) -> UnsafeMutableRawPointer {
        if let library { return library }
        let library = try ModuleFile.load(path)
        self.library = library
        return library
    }

    private func dropSession(_ token: PKCS11URI.TokenAttributes) {
        guard let session = sessions.removeValue(forKey: token) else { return }
        try? session.cryptoki.closeSession(session.handle)
    }

    /// C_Finalize: every session of every key on this library ends; each is opened again when it is wanted.
    private func finalize() {
        sessions.removeAll()
        guard let (_, cryptoki) = started else { return }
        try? cryptoki.check("C_Finalize") { cryptoki.functions.pointee.C_Finalize?(nil) }
        started = nil
    }
}

/// Where a key lives, and how to get there.
struct Target: Sendable {
    var start: ModuleStart
    var token: PKCS11URI.TokenAttributes
    var pin: PINSource?
}
