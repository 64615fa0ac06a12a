/// What the kernel keeps of a mount, as a revocation sees it. Called from threads that serve no request and hold no lock.
package protocol KernelCaching: Sendable {
    /// Attributes of these nodes are asked for again before they are next used, even for a write into the page cache.
    func invalidateAttributes(_ nodes: [UInt64])
    /// Pages, mappings, attributes, listings and link targets of these nodes go; what is dirty is written first, and awaited. False when the kernel was held up
    /// at one of them; the others are gone then.
    @discardableResult
    func purge(_ nodes: [UInt64]) -> Bool
    /// What requests and replies lay in, on their way between the kernel and this process, is zeroed; those that are being served do so when
    /// they are answered. Waits for them, two seconds at the most; false when some are still being served then.
    func wipeRequests() -> Bool
    /// Every name is looked up again before it is next used. False where the kernel does not know how: then `forget` is called for each.
    func expireNames() -> Bool
    /// One name of a directory goes.
    func forget(_ name: [UInt8], in parent: UInt64)
}
