import CLinux

/// Secret bytes of any length (a PIN, a wrapped bundle) in pages of their own: locked, non-dumpable, wiped at the end.
package struct SecretBuffer: ~Copyable, @unchecked Sendable {
    /// Bytes in use.
    package private(set) var count: Int
    // Owned by this value alone.
    private let start: UnsafeMutableRawPointer
    private let capacity: Int

    /// A zeroed buffer of `count` bytes.
    package init(count: Int) {
        precondition(count >= 0)
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        capacity = max(page, (count + page - 1) / page * page)
        start = LockedPages.map(capacity).start
        self.count = count
    }

    package borrowing func withBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        try body(UnsafeRawBufferPointer(start: start, count: count))
    }

    package mutating func withMutableBytes<R, E: Error>(
        _ body: (UnsafeMutableRawBufferPointer) throws(E) -> R
    ) throws(E) -> R {
        try body(UnsafeMutableRawBufferPointer(start: start, count: count))
    }

    /// Shortens the buffer; what falls away is wiped.
    package mutating func truncate(to newCount: Int) {
        precondition(newCount <= count)
        linux_explicit_bzero(start + newCount, count - newCount)
        count = newCount
    }

    deinit { LockedPages.unmap(start, capacity) }
}
