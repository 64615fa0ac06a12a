/// The blob of a split wrap (FORMAT §6): one half of the KEK under the CMK, the other under a *version key*, an AES key of the
/// same token that serves this one KEK version. With the version key destroyed, no copy of a keyring opens that version again,
/// while the CMK goes on.
package struct SplitWrap: Equatable, Sendable {
    package static let idSize = 16
    private static let object: StaticString = "split wrap"

    /// CKA_ID of the version key.
    package var id: [UInt8]
    /// The half under the CMK.
    package var root: RootWrap
    /// The half under the version key.
    package var version: RootWrap

    package init(id: [UInt8], root: RootWrap, version: RootWrap) {
        precondition(id.count == Self.idSize)
        self.id = id
        self.root = root
        self.version = version
    }

    package var wrap: RootWrap {
        var writer = ByteWriter()
        writer.append(contentsOf: id)
        for half in [root, version] {
            writer.append(half.algorithm.rawValue)
            writer.append(prefixed: half.blob)
        }
        return RootWrap(algorithm: .split, blob: writer.bytes)
    }

    /// Reads the blob of a wrap whose algorithm is `.split`.
    package init(parsing wrap: RootWrap) throws(FormatError) {
        guard wrap.algorithm == .split else { throw FormatError(.malformed, Self.object) }
        self = try wrap.blob.withUnsafeBufferPointer { (buffer) throws(FormatError) in
            var reader = ByteReader(UnsafeRawBufferPointer(buffer), of: Self.object)
            let id = try reader.readBytes(Self.idSize)
            let root = try Self.readHalf(&reader)
            let version = try Self.readHalf(&reader)
            try reader.expectEnd()
            return SplitWrap(id: id, root: root, version: version)
        }
    }

    private static func readHalf(_ reader: inout ByteReader) throws(FormatError) -> RootWrap {
        guard let algorithm = WrapAlgorithm(rawValue: try reader.read()), algorithm != .split else {
            throw FormatError(.malformed, object)
        }
        return RootWrap(algorithm: algorithm, blob: try reader.readPrefixed(limit: RootWrap.maximumBlob))
    }
}

extension KEKContext {
    /// What the half under the CMK is bound to.
    package var rootHalf: KEKContext { with(share: share | 0x40) }
    /// What the half under the version key is bound to.
    package var versionHalf: KEKContext { with(share: share | 0x80) }

    private func with(share: UInt8) -> KEKContext {
        KEKContext(volume: volume, zone: zone, kekVersion: kekVersion, share: share)
    }

    /// CKA_LABEL of the version keys of this KEK version: by it all of them are found, whichever wrap they served.
    package var versionKeyLabel: String { "lethefs \(volume) zone \(zone.rawValue) KEK \(kekVersion.rawValue)" }
}
