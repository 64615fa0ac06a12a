import CLinux

/// Anonymous pages that are kept out of swap, core dumps and forked children.
enum LockedPages {
    /// Maps `count` bytes (a multiple of the page size). `locked` is false where the kernel refused mlock(2).
    static func map(_ count: Int) -> (start: UnsafeMutableRawPointer, locked: Bool) {
        let start = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let start, Int(bitPattern: start) != -1 else { fatalError("no memory for keys") }
        let locked = mlock(start, count) == 0
        madvise(start, count, MADV_DONTDUMP)
        madvise(start, count, MADV_WIPEONFORK)
        return (start, locked)
    }

    static func unmap(_ start: UnsafeMutableRawPointer, _ count: Int) {
        linux_explicit_bzero(start, count)
        munmap(start, count)
    }
}
