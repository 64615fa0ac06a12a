import Synchronization

/// What the kernel calls inodes: small numbers, given again once the kernel has forgotten their last owner. The root is 1.
///
/// They are dense, so that a process that knows nothing but the highest one can purge them all from the kernel's cache.
package final class NodeNumbers: @unchecked Sendable {
    private static let chunkSize = 4096
    private static let chunkCount = 1 << 15

    private typealias Slot = Unmanaged<Inode>?
    // Chunks are added and never moved. A slot is written before the kernel hears of its number, and again when it has forgotten it.
    private let chunks: UnsafeMutablePointer<Atomic<UnsafeMutableRawPointer?>>
    // Leaf lock.
    private let free = Mutex<(numbers: [UInt32], highest: UInt64)>(([], 0))
    private let sharedHighest: SharedWord?

    init(sharedHighest: SharedWord?) {
        self.sharedHighest = sharedHighest
        chunks = .allocate(capacity: Self.chunkCount)
        for index in 0..<Self.chunkCount { (chunks + index).initialize(to: Atomic(nil)) }
    }

    /// A number for a new inode.
    func reserve() -> UInt64 {
        free.withLock { free in
            if let number = free.numbers.popLast() { return UInt64(number) }
            free.highest += 1
            precondition(free.highest < UInt64(Self.chunkCount * Self.chunkSize), "more inodes than numbers")
            let index = Int(free.highest) / Self.chunkSize
            if chunks[index].load(ordering: .relaxed) == nil {
                let chunk = UnsafeMutablePointer<Slot>.allocate(capacity: Self.chunkSize)
                chunk.initialize(repeating: nil, count: Self.chunkSize)
                chunks[index].store(UnsafeMutableRawPointer(chunk), ordering: .releasing)
            }
            sharedHighest?.store(free.highest)
            return free.highest
        }
    }

    func set(_ number: UInt64, to inode: Unmanaged<Inode>) { slot(number).pointee = inode }

    /// Lets go of an inode and its number.
    func release(_ number: UInt64) {
        let inode = slot(number).pointee
        slot(number).pointee = nil
        free.withLock { $0.numbers.append(UInt32(truncatingIfNeeded: number)) }
        inode?.release()
    }

    /// The inode of a number that the kernel was given and has not forgotten.
    @inline(__always)
    package func inode(_ number: UInt64) -> Inode {
        guard number < UInt64(Self.chunkCount * Self.chunkSize), let inode = slot(number).pointee else {
            preconditionFailure("a node that the kernel was not given")
        }
        return inode.takeUnretainedValue()
    }

    /// The highest number ever given out.
    package var highest: UInt64 { free.withLock { $0.highest } }

    @inline(__always)
    private func slot(_ number: UInt64) -> UnsafeMutablePointer<Slot> {
        let index = Int(truncatingIfNeeded: number) / Self.chunkSize
        guard let chunk = chunks[index].load(ordering: .acquiring) else {
            preconditionFailure("a node that the kernel was not given")
        }
        return chunk.assumingMemoryBound(to: Slot.self) + Int(truncatingIfNeeded: number) % Self.chunkSize
    }

    deinit {
        for index in 0..<Self.chunkCount { chunks[index].load(ordering: .relaxed)?.deallocate() }
        chunks.deallocate()
    }
}

/// An aligned 64-bit word in memory that another process may read. The memory outlives all its users.
package struct SharedWord: @unchecked Sendable {
    // Written with atomic stores only.
    private let word: UnsafeMutablePointer<Atomic<UInt64>>

    package init(_ address: UnsafeMutableRawPointer) { word = address.assumingMemoryBound(to: Atomic<UInt64>.self) }

    package func store(_ value: UInt64) { word.pointee.store(value, ordering: .releasing) }
    package var value: UInt64 { word.pointee.load(ordering: .acquiring) }
}
