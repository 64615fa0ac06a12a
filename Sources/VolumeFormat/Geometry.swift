/// Index of a 4096-byte cipher page in a lower file.
package struct PageIndex: RawRepresentable, Hashable, Comparable, Sendable {
    package var rawValue: UInt64
    @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable package static func < (left: PageIndex, right: PageIndex) -> Bool { left.rawValue < right.rawValue }
}

/// Where plaintext lies in a lower file (FORMAT §2).
///
///     page 0      512-byte header | 32-byte leader | 3552 payload bytes
///     page 1..n   32-byte leader | 4064 payload bytes
///
/// Every page is 4096 bytes on disk. The lower length is 4096 × pages + the payload bytes used in the last page: a tail
/// that is never written, from which stat(2) alone gives the plaintext size.
package enum Geometry {
    package static let pageSize = 4096
    package static let headerSize = 512
    package static let leaderSize = 32
    /// Payload bytes of page 0.
    package static let firstPayload = pageSize - headerSize - leaderSize
    /// Payload bytes of every other page.
    package static let payload = pageSize - leaderSize
    /// Largest plaintext size: its lower length stays within a signed 64-bit offset.
    package static let maximumSize: UInt64 = 1 << 62

    /// The page that holds plaintext offset `offset`.
    @inlinable package static func page(at offset: UInt64) -> PageIndex {
        offset < UInt64(firstPayload)
            ? PageIndex(rawValue: 0) : PageIndex(rawValue: 1 + (offset - UInt64(firstPayload)) / UInt64(payload))
    }

    /// The plaintext offset of a page's first payload byte.
    @inlinable package static func plainStart(of page: PageIndex) -> UInt64 {
        page.rawValue == 0 ? 0 : UInt64(firstPayload) + (page.rawValue - 1) * UInt64(payload)
    }

    /// Payload bytes that a page can hold.
    @inlinable package static func capacity(of page: PageIndex) -> Int { page.rawValue == 0 ? firstPayload : payload }

    /// Pages of a file of `size` plaintext bytes; an empty file has a header and no page.
    @inlinable package static func pageCount(forSize size: UInt64) -> UInt64 {
        size == 0 ? 0 : page(at: size - 1).rawValue + 1
    }

    /// Lower offset of a page's leader.
    @inlinable package static func leaderOffset(of page: PageIndex) -> UInt64 {
        page.rawValue == 0 ? UInt64(headerSize) : page.rawValue * UInt64(pageSize)
    }

    /// The lower length that says `size`.
    @inlinable package static func lowerLength(forSize size: UInt64) -> UInt64 {
        guard size > 0 else { return UInt64(headerSize) }
        let last = page(at: size - 1)
        return (last.rawValue + 1) * UInt64(pageSize) + (size - plainStart(of: last))
    }

    /// What a lower length says about the plaintext size.
    package enum LowerLength: Equatable, Sendable {
        /// Nothing was written yet, not even the header.
        case unwritten
        case size(UInt64)
        /// A whole number of pages: the last page's leader knows (only while open for writing, or after a crash).
        case lastPageDecides(pages: UInt64)
        /// No length that this format makes.
        case invalid
    }

    package static func interpret(lowerLength: UInt64) -> LowerLength {
        if lowerLength == 0 { return .unwritten }
        if lowerLength == UInt64(headerSize) { return .size(0) }
        let pages = lowerLength / UInt64(pageSize)
        let used = lowerLength % UInt64(pageSize)
        guard pages > 0, lowerLength <= Self.lowerLength(forSize: maximumSize) else { return .invalid }
        if used == 0 { return .lastPageDecides(pages: pages) }
        let last = PageIndex(rawValue: pages - 1)
        return used <= UInt64(capacity(of: last)) ? .size(plainStart(of: last) + used) : .invalid
    }
}
