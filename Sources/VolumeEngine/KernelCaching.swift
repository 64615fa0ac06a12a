/// A node as a revocation hands it to the kernel.
package struct CachedNode: Sendable {
    package let number: UInt64
    /// Bytes of an open file; 0 of what nobody has open.
    package let size: UInt64

    package init(number: UInt64, size: UInt64) {
        self.number = number
        self.size = size
    }
}

/// What the kernel keeps of a mount, as a revocation sees it. Called from threads that serve no request and hold no lock.
package protocol KernelCaching: Sendable {
    /// Attributes of these nodes are asked for again before they are next used, even for a write into the page cache.
    func invalidateAttributes(_ nodes: [UInt64])
    /// Pages, mappings, attributes, listings and link targets of these nodes go; what is dirty is written first, and awaited. False when the kernel was held up
    /// at a page of one of them: all other nodes are done then, and with `inPieces`, which takes seconds more, its other pages.
    @discardableResult
    func purge(_ nodes: [CachedNode], inPieces: Bool) -> Bool
    /// What requests and replies lay in, on their way between the kernel and this process, is zeroed; those that are being served do so when
    /// they are answered. Waits for them, two seconds at the most; false when some are still being served then.
    func wipeRequests() -> Bool
    /// Every name is looked up again before it is next used. False where the kernel does not know how: then `forget` is called for each.
    func expireNames() -> Bool
    /// One name of a directory goes.
    func forget(_ name: [UInt8], in parent: UInt64)
}
