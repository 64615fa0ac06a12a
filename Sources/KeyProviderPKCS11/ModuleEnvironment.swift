import CLinux
import Glibc

/// SOFTHSM2_CONF, the only variable that a URI may set (`x-conf`): it says where SoftHSM2 keeps its tokens, and can
/// neither load code nor redirect another library.
///
/// Modules start on threads of their own, and C_Initialize reads the environment. So it is changed only while none starts; those that want
/// it as it is start side by side, and one that hangs holds up none of them. Whoever wants it otherwise waits, and not for ever.
final class ModuleEnvironment: @unchecked Sendable {
    static let shared = ModuleEnvironment()
    static let variable = "SOFTHSM2_CONF"
    private static let patienceSeconds = 5

    // Guards the variable's changes and `starting`. A leaf: held over no C_Initialize.
    private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let ended = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    /// Modules within C_Initialize, all of which want the variable as it is.
    private var starting = 0
    private let inherited: String?

    private init() {
        inherited = getenv(Self.variable).map { String(cString: $0) }
        pthread_mutex_init(lock, nil)
        beginWaiting()
        // A child has none of the threads that its parent had within C_Initialize, nor those that wait for them.
        pthread_atfork(
            { pthread_mutex_lock(ModuleEnvironment.shared.lock) },
            { pthread_mutex_unlock(ModuleEnvironment.shared.lock) },
            {
                ModuleEnvironment.shared.starting = 0
                ModuleEnvironment.shared.beginWaiting()
                pthread_mutex_unlock(ModuleEnvironment.shared.lock)
            })
    }

    private func beginWaiting() {
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(ended, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    /// Runs `body` with the variable as a module wants it. Throws `.timedOut` where others that want it otherwise do not come to an end.
    func with(_ configuration: String?, _ body: () throws(Failure) -> Void) throws(Failure) {
        try begin(configuration ?? inherited)
        defer { end() }
        try body()
    }

    private func begin(_ wanted: String?) throws(Failure) {
        var deadline = timespec()
        clock_gettime(CLOCK_MONOTONIC, &deadline)
        deadline.tv_sec += Self.patienceSeconds
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        while wanted != current {
            guard starting > 0 else {
                if let wanted { setenv(Self.variable, wanted, 1) } else { unsetenv(Self.variable) }
                break
            }
            guard pthread_cond_timedwait(ended, lock, &deadline) != ETIMEDOUT else {
                throw Failure(
                    .timedOut,
                    "C_Initialize: a module that was started with another \(Self.variable) has not returned from it")
            }
        }
        starting += 1
    }

    private func end() {
        pthread_mutex_lock(lock)
        starting -= 1
        pthread_cond_broadcast(ended)
        pthread_mutex_unlock(lock)
    }

    private var current: String? { getenv(Self.variable).map { String(cString: $0) } }
}
