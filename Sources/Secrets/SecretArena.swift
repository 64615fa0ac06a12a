import CLinux
import Synchronization

/// Slots of one size in memory that is locked, left out of core dumps, and emptied in a forked child.
///
/// A freed slot is wiped before it can be handed out again. Pages are never returned: the number of live keys bounds them.
package final class SecretArena: Sendable {
    /// Bytes a slot: a 256-bit key, aligned so that no two keys share a cache line with other data.
    package static let slotSize = 32
    private static let chunkSize = 64 * 1024

    package static let shared = SecretArena()

    private struct State {
        var free: [UnsafeMutableRawPointer] = []
        var chunks: [UnsafeMutableRawPointer] = []
        var unlockedChunks = 0
    }
    // Raw pointers into the arena's own mappings; every access is under the mutex.
    private let state: Mutex<SendableBox<State>> = Mutex(SendableBox(State()))

    /// Chunks that the kernel would not lock (RLIMIT_MEMLOCK): their keys could reach swap.
    package var unlockedChunks: Int { state.withLock { $0.value.unlockedChunks } }

    /// Slots in use; a test that counts leaks reads it.
    package var liveSlots: Int {
        state.withLock { $0.value.chunks.count * (Self.chunkSize / Self.slotSize) - $0.value.free.count }
    }

    func acquire() -> UnsafeMutableRawPointer {
        state.withLock { box in
            if box.value.free.isEmpty { Self.grow(&box.value) }
            return box.value.free.removeLast()
        }
    }

    func release(_ slot: UnsafeMutableRawPointer) {
        linux_explicit_bzero(slot, Self.slotSize)
        state.withLock { $0.value.free.append(slot) }
    }

    private static func grow(_ state: inout State) {
        let (chunk, locked) = LockedPages.map(chunkSize)
        if !locked { state.unlockedChunks += 1 }
        state.chunks.append(chunk)
        for offset in stride(from: chunkSize - slotSize, through: 0, by: -slotSize) {
            state.free.append(chunk + offset)
        }
    }
}

/// Carries a value that is reached only under its owner's mutex.
struct SendableBox<Value>: @unchecked Sendable {
    var value: Value
    init(_ value: Value) { self.value = value }
}
