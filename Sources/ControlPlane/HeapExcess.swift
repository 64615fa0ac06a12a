import CLinux

/// What has come to lie free in memory since this was made: by how much more memory is resident, less by how much more is in use. Measured from
/// what was there after a trim, so that what no trim can give back (pages with a few bytes in use, mappings outside the heap) does not count.
struct HeapExcess {
    private var free = Self.now

    /// 0 where there is less of it: mappings that were there at first have gone, and it is measured from here on.
    mutating func bytes() -> Int {
        let now = Self.now
        free = min(free, now)
        return now - free
    }

    private static var now: Int { linux_resident_anonymous() - linux_heap_in_use() }
}
