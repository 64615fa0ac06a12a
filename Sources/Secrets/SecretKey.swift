/// A 256-bit key in locked, non-dumpable memory. It cannot be copied, and is wiped when its owner lets it go.
package struct SecretKey: ~Copyable, @unchecked Sendable {
    /// Bytes in a key.
    package static let size = SecretArena.slotSize

    // The slot is owned by this value alone and written only through `mutating` access or during init.
    private let slot: UnsafeMutableRawPointer

    /// A key filled in by `fill`, which gets exactly `SecretKey.size` zeroed bytes.
    package init<E: Error>(_ fill: (UnsafeMutableRawBufferPointer) throws(E) -> Void) throws(E) {
        let slot = SecretArena.shared.acquire()
        do {
            try fill(UnsafeMutableRawBufferPointer(start: slot, count: Self.size))
        } catch {
            SecretArena.shared.release(slot)
            throw error
        }
        self.slot = slot
    }

    /// The key's bytes, for the time of the call.
    package borrowing func withBytes<R: ~Copyable, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E)
        -> R
    {
        try body(UnsafeRawBufferPointer(start: slot, count: Self.size))
    }

    /// Another owner of the same key material.
    package borrowing func copy() -> SecretKey {
        let source = UnsafeRawBufferPointer(start: slot, count: Self.size)
        return SecretKey { $0.copyMemory(from: source) }
    }

    deinit { SecretArena.shared.release(slot) }
}
