/// The 32 bytes before a page's payload: IV 12 | DEK version and used length 4 | GCM tag 16 (FORMAT §3).
///
/// The used length is authenticated, so that the size of a file survives a crash in which only the page was written.
package struct PageLeader: Equatable, Sendable {
    /// DEK version (20 bits) above the number of payload bytes in use (12 bits).
    package var versionAndLength: UInt32

    package static let ivOffset = 0
    package static let versionOffset = 12
    package static let tagOffset = 16
    /// DEK versions of one file end here; 2^20 re-encryptions.
    package static let maximumVersion: UInt32 = (1 << 20) - 1

    @inlinable package init(versionAndLength: UInt32) { self.versionAndLength = versionAndLength }

    @inlinable package init(version: KeyVersion, usedLength: Int) {
        versionAndLength = version.rawValue << 12 | UInt32(truncatingIfNeeded: usedLength)
    }

    @inlinable package init(at leader: UnsafeRawPointer) {
        let raw = leader.loadUnaligned(fromByteOffset: Self.versionOffset, as: UInt32.self)
        versionAndLength = UInt32(littleEndian: raw)
    }

    @inlinable package func store(at leader: UnsafeMutableRawPointer) {
        leader.storeBytes(of: versionAndLength.littleEndian, toByteOffset: Self.versionOffset, as: UInt32.self)
    }

    @inlinable package var version: KeyVersion { KeyVersion(rawValue: versionAndLength >> 12) }
    @inlinable package var usedLength: Int { Int(versionAndLength & 0xFFF) }
}

/// The additional authenticated data of a page, 32 bytes: "LPG1" | version and length 4 | file UUID 16 | page index 8. Where a tree
/// lists the pages, 40 bytes: "LPG2" | … | session 8.
package struct PageAAD: Sendable {
    package static let size = 32
    package static let listedSize = 40
    private static let magic: UInt32 = 0x3147_504C  // "LPG1", little-endian
    private static let listedMagic: UInt32 = 0x3247_504C  // "LPG2"

    /// Writes the parts that all pages of a file share.
    @inlinable package static func prepare(_ aad: UnsafeMutableRawPointer, file: UniqueID, isListed: Bool = false) {
        aad.storeBytes(of: (isListed ? listedMagicValue : magicValue).littleEndian, as: UInt32.self)
        aad.storeBytes(of: file.high.bigEndian, toByteOffset: 8, as: UInt64.self)
        aad.storeBytes(of: file.low.bigEndian, toByteOffset: 16, as: UInt64.self)
    }

    /// Writes the parts that belong to one page.
    @inlinable package static func set(_ aad: UnsafeMutableRawPointer, page: PageIndex, leader: PageLeader) {
        aad.storeBytes(of: leader.versionAndLength.littleEndian, toByteOffset: 4, as: UInt32.self)
        aad.storeBytes(of: page.rawValue.littleEndian, toByteOffset: 24, as: UInt64.self)
    }

    /// Writes the session, of a page that a tree lists.
    @inlinable package static func set(_ aad: UnsafeMutableRawPointer, session: UInt64) {
        aad.storeBytes(of: session.littleEndian, toByteOffset: 32, as: UInt64.self)
    }

    @usableFromInline package static var magicValue: UInt32 { magic }
    @usableFromInline package static var listedMagicValue: UInt32 { listedMagic }
}
