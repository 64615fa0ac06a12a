import Storage
import Synchronization
import VolumeEngine

/// Takes the pages of nodes from the kernel, where any of them may be one that the kernel waits for.
///
/// The kernel goes through a node's pages in order and waits at each that is locked: one that a read under way is to fill, which a lower
/// storage that hangs does not, or one of a listing that a program reads into memory that never comes. So a node that takes
/// long is gone through again in pieces, and those that do in smaller ones, and at last page by page from both ends: the pages that the kernel
/// waits for stay, and at the most what lies between two of them within 64 KiB.
final class PagePurge: Sendable {
    /// A part of a node.
    struct Piece: Hashable, Sendable {
        enum Order { case atOnce, upwards, downwards }

        let node: UInt64
        /// Bytes.
        let start: UInt64
        /// Bytes; 0: to the end, wherever that is.
        let length: UInt64
        var order = Order.atOnce

        /// What is asked of the kernel, one after the other: first byte and length.
        var calls: [(start: UInt64, length: UInt64)] {
            guard order != .atOnce else { return [(start, length)] }
            let pages = stride(from: start, to: start + length, by: Int(PagePurge.page))
                .map { (start: $0, length: PagePurge.page) }
            return order == .upwards ? pages : pages.reversed()
        }
    }

    /// Makes the work of purging pieces; it calls its second argument with the index of what is done late.
    typealias Begin = (_ pieces: [Piece], _ late: @escaping @Sendable (Int) -> Void) -> PatientWork

    static let page: UInt64 = 4096
    private static let large: UInt64 = 1 << 20
    private static let small: UInt64 = 1 << 16
    private static let mostPieces: UInt64 = 1 << 16
    /// Each takes a second or two when the kernel is held up, at dozens of pieces.
    private static let mostAttempts = 4
    /// Microseconds: shorter than for whole nodes, since there is little in one, and what is late comes all the same.
    private static let isLost: UInt64 = 250_000

    /// What threads from before still hang at: it need not be begun again. Leaf lock.
    private let hanging = Mutex<Set<Piece>>([])

    /// True when all pages are gone. Without `inPieces` those of a node that takes long are left to the thread that hangs at it.
    func purge(_ nodes: [CachedNode], inPieces: Bool, _ begin: Begin) -> Bool {
        let whole = nodes.map { Piece(node: $0.number, start: 0, length: 0) }
        let late = Set(hung(whole, lostAfter: PatientWork.isLost, inPieces ? Self.mostAttempts : 1, begin).map(\.node))
        guard !late.isEmpty else { return true }
        guard inPieces else { return false }
        var pieces = nodes.filter { late.contains($0.number) }.flatMap(Self.pieces)
        while !pieces.isEmpty {
            pieces = hung(pieces, lostAfter: Self.isLost, Self.mostAttempts, begin).flatMap(Self.parts)
        }
        return false
    }

    /// Those at which the kernel is held up. Where they are so many that others could not be begun, those come then.
    private func hung(_ pieces: [Piece], lostAfter: UInt64, _ attempts: Int, _ begin: Begin) -> [Piece] {
        var (hung, waiting) = ([Piece](), pieces)
        for _ in 0..<attempts where !waiting.isEmpty {
            let (held, left) = attempt(waiting, lostAfter, begin)
            hung += held
            waiting = left
        }
        return hung + waiting
    }

    private func attempt(
        _ pieces: [Piece], _ lostAfter: UInt64, _ begin: Begin
    ) -> (hung: [Piece], left: [Piece]) {
        let known = hanging.withLock { $0 }
        let old = known.isEmpty ? [] : pieces.filter(known.contains)
        let new = old.isEmpty ? pieces : pieces.filter { !known.contains($0) }
        let work = begin(new) { [self] index in hanging.withLock { _ = $0.remove(new[index]) } }
        guard work.run(lostAfterMicroseconds: lostAfter) > 0 else { return (old, []) }
        // In this order: a thread that comes back begins another.
        let left = work.notBegun
        let held = work.hanging
        hanging.withLock { hanging in for index in held { hanging.insert(new[index]) } }
        // What was done before it was noted has called in vain.
        let still = work.hanging
        hanging.withLock { hanging in for index in held.subtracting(still) { hanging.remove(new[index]) } }
        return (old + held.map { new[$0] }, Array(new[left]))
    }

    /// Beyond the size that the daemon knows, programs may have written as much as they may leave unwritten.
    private static func pieces(_ node: CachedNode) -> [Piece] {
        let (size, isLarger) = node.size.addingReportingOverflow(PageCacheBounds.unwrittenBytes)
        let known = isLarger ? node.size : size
        var width = large
        while known / width >= mostPieces { width *= large / small }
        let count = known / width + 1
        return (0..<count).map { Piece(node: node.number, start: $0 * width, length: width) }
            + [Piece(node: node.number, start: count * width, length: 0)]
    }

    private static func parts(_ piece: Piece) -> [Piece] {
        guard piece.order == .atOnce, piece.length > 0 else { return [] }
        if piece.length <= small {
            return [Piece.Order.upwards, .downwards].map {
                Piece(node: piece.node, start: piece.start, length: piece.length, order: $0)
            }
        }
        let width = piece.length / (large / small)
        return stride(from: piece.start, to: piece.start + piece.length, by: Int(width)).map {
            Piece(node: piece.node, start: $0, length: width)
        }
    }
}
