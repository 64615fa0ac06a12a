import CLinux
import Synchronization

/// A fixed number of GCM contexts, shared by all threads and files.
///
/// A request takes the slot that its key hashes to, or the next free one: a file that is used again finds its key loaded,
/// and the number of key schedules in memory is bounded, so that a revocation can wipe every one of them.
package final class AEADPool: @unchecked Sendable {
    // A slot's context is touched only by the thread that set its flag.
    private let contexts: UnsafeMutablePointer<AEADContext>
    private let busy: UnsafeMutablePointer<Atomic<Bool>>
    private let count: Int

    package init(slots: Int = 16) throws(CipherError) {
        count = slots
        contexts = .allocate(capacity: slots)
        busy = .allocate(capacity: slots)
        for index in 0..<slots {
            (contexts + index).initialize(to: try AEADContext())
            (busy + index).initialize(to: Atomic(false))
        }
    }

    /// Runs `body` with a context of this thread's own for the time of the call.
    @inline(__always)
    package func withContext<R, E: Error>(
        for key: borrowing AEADKey, _ body: (inout AEADContext) throws(E) -> R
    ) throws(E) -> R {
        let index = acquire(from: Int(truncatingIfNeeded: key.identity % UInt64(count)))
        defer {
            // OpenSSL leaves the last blocks there that it had in registers.
            linux_wipe_stack(4096)
            release(index)
        }
        return try body(&contexts[index])
    }

    /// Wipes every context, waiting for each to be free.
    package func wipe() {
        for index in 0..<count {
            while busy[index].exchange(true, ordering: .acquiring) { SpinHint.yield() }
            contexts[index].wipe()
            release(index)
        }
    }

    private func acquire(from start: Int) -> Int {
        var index = start
        var tries = 0
        while busy[index].exchange(true, ordering: .acquiring) {
            index = index + 1 == count ? 0 : index + 1
            tries += 1
            if tries % count == 0 { SpinHint.yield() }
        }
        return index
    }

    @inline(__always)
    private func release(_ index: Int) { busy[index].store(false, ordering: .releasing) }

    deinit {
        contexts.deinitialize(count: count)
        contexts.deallocate()
        busy.deinitialize(count: count)
        busy.deallocate()
    }
}
