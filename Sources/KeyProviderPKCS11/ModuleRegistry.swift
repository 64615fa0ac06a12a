import CLinux
import Glibc
import KeyManagement

/// The modules of this process: one object a library, however many keys are in use.
///
/// A forked child has none of its parent's threads: it begins with an empty registry, and so starts its libraries anew,
/// as PKCS#11 2.40 §6.6.1 demands of it. (tpm2-pkcs11's parent does not survive that: daemonise before the first call.)
final class ModuleRegistry: @unchecked Sendable {
    static let shared = ModuleRegistry()
    // Guards `modules` and `owner`; taken around fork(2), so that a child never finds it locked. A leaf.
    private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private var modules: [String: Module] = [:]
    private var owner = getpid()
    private var isForked = false

    private init() {
        pthread_mutex_init(lock, nil)
        pthread_atfork(
            { pthread_mutex_lock(ModuleRegistry.shared.lock) }, { pthread_mutex_unlock(ModuleRegistry.shared.lock) },
            { pthread_mutex_unlock(ModuleRegistry.shared.lock) })
        // p11-kit's client writes to a socket whose server may be gone; nobody here wants to die of that.
        var action = sigaction()
        if sigaction(SIGPIPE, nil, &action) == 0, action.__sigaction_handler.sa_handler == nil {
            signal(SIGPIPE, SIG_IGN)
        }
    }

    func module(at path: String) throws(RootError) -> Module {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        if owner != getpid() {
            owner = getpid()
            isForked = true
            modules = [:]
        }
        if let module = modules[path] { return module }
        let module = try Module(path: path, isInForkedChild: isForked)
        modules[path] = module
        return module
    }
}
