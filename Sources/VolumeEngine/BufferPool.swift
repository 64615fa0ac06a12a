import Glibc
import Synchronization
import VolumeFormat

/// Page-aligned memory for one request: cipher pages on one side, their payloads on the other.
///
/// The payloads of consecutive pages are consecutive plaintext, so a request is opened straight into its reply.
package final class RequestBuffer: @unchecked Sendable {
    /// Longest request, in plaintext bytes.
    package static let maximumRequest = 1 << 20
    /// Pages that such a request can touch.
    static let maximumPages = maximumRequest / Geometry.payload + 3
    static let capacity = maximumPages * Geometry.pageSize

    // Used by the one thread that took the buffer from the pool.
    let cipher: UnsafeMutableRawPointer
    let plain: UnsafeMutableRawPointer
    /// How far each side was used, so that wiping costs what was used.
    fileprivate var used = 0
    /// The pool's generation when it was taken.
    fileprivate var generation: UInt64 = 0

    fileprivate init() {
        cipher = .allocate(byteCount: Self.capacity, alignment: Geometry.pageSize)
        plain = .allocate(byteCount: Self.capacity, alignment: Geometry.pageSize)
    }

    /// Notes that `pages` pages are about to be used.
    @inline(__always)
    func willUse(pages: Int) { used = max(used, pages * Geometry.pageSize) }

    /// Zeroes what has held plaintext.
    func wipe() {
        explicit_bzero(plain, used)
        used = 0
    }

    deinit {
        explicit_bzero(plain, used)
        cipher.deallocate()
        plain.deallocate()
    }
}

/// Request buffers, the last used first: an idle mount keeps few pages warm.
package final class BufferPool: Sendable {
    private let free = Mutex<(buffers: [RequestBuffer], generation: UInt64, uses: Int)>(([], 0, 0))
    /// Buffers kept for reuse; more are made under load, and dropped after it.
    private let keep: Int

    init(keep: Int = 8) { self.keep = keep }

    /// Requests for which a buffer was taken, ever.
    package var uses: Int { free.withLock { $0.uses } }

    /// One that does not count as a request: for a sweep's own work.
    func takeForSweep() -> RequestBuffer {
        let buffer = RequestBuffer()
        buffer.generation = free.withLock { $0.generation }
        return buffer
    }

    package func take() -> RequestBuffer {
        let (kept, generation) = free.withLock { free in
            free.uses &+= 1
            return (free.buffers.popLast(), free.generation)
        }
        let buffer = kept ?? RequestBuffer()
        buffer.generation = generation
        return buffer
    }

    package func give(_ buffer: RequestBuffer) {
        free.withLock { free in
            if free.buffers.count < keep, buffer.generation == free.generation { free.buffers.append(buffer) }
        }
    }

    /// Lets go of what is kept. False when there was nothing.
    package func shrink() -> Bool {
        let kept = free.withLock { free in
            defer { free.buffers = [] }
            return free.buffers
        }
        // Their end wipes them.
        return withExtendedLifetime(kept) { !kept.isEmpty }
    }

    /// Wipes what is kept, and each buffer that is in use when it is given back.
    func wipe() {
        let kept = free.withLock { free in
            free.generation += 1
            defer { free.buffers = [] }
            return free.buffers
        }
        // Their end wipes them.
        withExtendedLifetime(kept) {}
    }
}
