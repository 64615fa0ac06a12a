import CLinux
import Synchronization

/// Collects what the engine says about damage on one thread, instead of the mount's observer: a check that runs beside
/// programs names what it finds by path, and is no program that met damage.
enum DamageScope {
    private struct Scope {
        var damages: [Damage] = []
        var hasSettled = false
    }

    private static let active = Atomic<Int>(0)
    private static let scopes = Mutex<[UInt: Scope]>([:])
    private static var thread: UInt { UInt(pthread_self()) }

    /// From now on this thread's damages are collected, until `end`.
    static func begin() {
        scopes.withLock { scopes in
            scopes[thread] = Scope()
            active.store(scopes.count, ordering: .releasing)
        }
    }

    static func end() {
        scopes.withLock { scopes in
            scopes[thread] = nil
            active.store(scopes.count, ordering: .releasing)
        }
    }

    /// What was collected since the last call.
    static func take() -> [Damage] {
        scopes.withLock { scopes in
            defer { scopes[thread]?.damages = [] }
            return scopes[thread]?.damages ?? []
        }
    }

    /// Notes that a file which a crash left in doubt was settled: a look at its size is enough for that. A thread that does not
    /// collect leaves nothing behind: another one may get its identity.
    static func noteSettled() {
        guard active.load(ordering: .acquiring) > 0 else { return }
        scopes.withLock { $0[thread]?.hasSettled = true }
    }

    /// Whether any was, on this thread, since the last call.
    static func takeSettled() -> Bool {
        scopes.withLock { scopes in
            defer { scopes[thread]?.hasSettled = false }
            return scopes[thread]?.hasSettled ?? false
        }
    }

    /// True when this thread collects, and so nobody else is to be told.
    static func note(_ damage: Damage) -> Bool {
        guard active.load(ordering: .acquiring) > 0 else { return false }
        return scopes.withLock { $0[thread]?.damages.append(damage) != nil }
    }
}
