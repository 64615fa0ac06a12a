import Ciphers
import KeyManagement
import VolumeFormat

/// `.lethefs/audit/key`: the public keys that sign this volume's log, each with the first record that it may sign (AUDIT.md §4).
/// The root zone's KEK authenticates the file, so that nobody without it can put a log and a key of his own in their place.
package struct AuditKeyList: Equatable, Sendable {
    package struct Key: Equatable, Sendable {
        package var firstSequence: UInt64
        /// SubjectPublicKeyInfo, DER.
        package var publicKey: [UInt8]
        package init(firstSequence: UInt64, publicKey: [UInt8]) {
            self.firstSequence = firstSequence
            self.publicKey = publicKey
        }
    }

    package static let magic = Array("LETHEAUK".utf8)
    package static let formatVersion: UInt16 = 1
    package static let maximumCount = 64
    package static let maximumEncodedSize = 256 << 10
    private static let object: StaticString = "audit key list"

    package var volume: UniqueID
    package var keys: [Key]

    package init(volume: UniqueID, keys: [Key]) {
        self.volume = volume
        self.keys = keys
    }

    package var authenticatedBytes: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Self.magic)
        writer.append(Self.formatVersion)
        writer.append(volume)
        writer.append(UInt8(keys.count))
        for key in keys {
            writer.append(key.firstSequence)
            writer.append(prefixed: key.publicKey)
        }
        return writer.bytes
    }

    package init(parsing bytes: UnsafeRawBufferPointer) throws(FormatError) {
        var reader = ByteReader(bytes, of: Self.object)
        try reader.expect(magic: Self.magic, version: Self.formatVersion)
        volume = try reader.readID()
        keys = []
        let count = Int(try reader.read(UInt8.self))
        guard count <= Self.maximumCount else { throw FormatError(.malformed, Self.object) }
        for _ in 0..<count {
            let first: UInt64 = try reader.read()
            let key = try reader.readPrefixed(limit: PublicKey.maximumEncodedSize)
            keys.append(Key(firstSequence: first, publicKey: key))
        }
        try reader.expectEnd()
    }
}

/// `.lethefs/audit/head`: the last checkpoint (AUDIT.md §4). Authenticated as the key list is.
package struct AuditHead: Equatable, Sendable {
    package static let magic = Array("LETHEAUH".utf8)
    package static let formatVersion: UInt16 = 1
    package static let maximumEncodedSize = 4096
    private static let object: StaticString = "audit head"

    package var volume: UniqueID
    package var sequence: UInt64
    package var hash: [UInt8]
    /// Where in the log the record ends, its newline included.
    package var end: UInt64

    package init(volume: UniqueID, sequence: UInt64, hash: [UInt8], end: UInt64) {
        self.volume = volume
        self.sequence = sequence
        self.hash = hash
        self.end = end
    }

    package var authenticatedBytes: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Self.magic)
        writer.append(Self.formatVersion)
        writer.append(volume)
        writer.append(sequence)
        writer.append(contentsOf: hash)
        writer.append(end)
        return writer.bytes
    }

    package init(parsing bytes: UnsafeRawBufferPointer) throws(FormatError) {
        var reader = ByteReader(bytes, of: Self.object)
        try reader.expect(magic: Self.magic, version: Self.formatVersion)
        volume = try reader.readID()
        sequence = try reader.read()
        hash = try reader.readBytes(SHA256.size)
        end = try reader.read()
        try reader.expectEnd()
    }
}

/// What is signed with the key beside the CMK. The byte after the magic keeps the uses apart.
package enum AuditMessage {
    private static let magic = Array("LETHESIG".utf8)

    /// All records up to one, by its hash.
    package static func checkpoint(_ volume: UniqueID, sequence: UInt64, hash: [UInt8]) -> [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: magic)
        writer.append(UInt8(1))
        writer.append(volume)
        writer.append(sequence)
        writer.append(contentsOf: hash)
        return writer.bytes
    }

    /// Any other statement about a volume: a certificate.
    package static func statement(_ volume: UniqueID, _ bytes: [UInt8]) -> [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: magic)
        writer.append(UInt8(2))
        writer.append(volume)
        writer.append(contentsOf: bytes)
        return writer.bytes
    }
}
