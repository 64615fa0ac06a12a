import CLinux

/// What has come to lie free in memory since this was made: by how much more memory is resident, less by how much more is in use. Measured from
/// what was there after a trim, so that what no trim can give back (pages with a few bytes in use, mappings outside the heap) does not count.
struct HeapExcess {
    private let free = Self.now

    var bytes: Int { Self.now - free }

    private static var now: Int { linux_resident_anonymous() - linux_heap_in_use() }
}
