import CLinux
import Synchronization

/// Collects what the engine says about damage on one thread, instead of the mount's observer: a check that runs beside
/// programs names what it finds by path, and is no program that met damage.
enum DamageScope {
    private static let active = Atomic<Int>(0)
    private static let scopes = Mutex<[UInt: [Damage]]>([:])
    private static let settled = Mutex<[UInt: Int]>([:])
    private static var thread: UInt { UInt(pthread_self()) }

    /// From now on this thread's damages are collected, until `end`.
    static func begin() {
        scopes.withLock { scopes in
            scopes[thread] = []
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
            let seen = scopes[thread] ?? []
            scopes[thread] = []
            return seen
        }
    }

    /// Notes that a file which a crash left in doubt was settled: a look at its size is enough for that.
    static func noteSettled() {
        guard active.load(ordering: .acquiring) > 0 else { return }
        settled.withLock { $0[thread, default: 0] += 1 }
    }

    /// Whether any was, on this thread, since the last call.
    static func takeSettled() -> Bool { settled.withLock { ($0.removeValue(forKey: thread) ?? 0) > 0 } }

    /// True when this thread collects, and so nobody else is to be told.
    static func note(_ damage: Damage) -> Bool {
        guard active.load(ordering: .acquiring) > 0 else { return false }
        return scopes.withLock { $0[thread]?.append(damage) != nil }
    }
}
