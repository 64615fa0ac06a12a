/// `.lethefs/volume`: what a volume is (FORMAT §8). Followed by the KEK version and MAC that authenticate it.
package struct VolumeDescription: Equatable, Sendable {
    package static let magic = Array("LETHEVOL".utf8)
    package static let formatVersion: UInt16 = 1
    package static let maximumEncodedSize = 64 << 10
    private static let object: StaticString = "volume description"

    package var features: FeatureFlags = .ofEachVolume
    package var volume: UniqueID
    /// Seconds since 1970.
    package var created: UInt64
    /// UUID of the lower root's directory header: the tree cannot be exchanged for another one of the same volume.
    package var rootDirectory: UniqueID
    /// What the operator decided for the volume; what is not there has its default.
    package var settings: [VolumeSetting: UInt64] = [:]

    package init(volume: UniqueID, created: UInt64, rootDirectory: UniqueID) {
        self.volume = volume
        self.created = created
        self.rootDirectory = rootDirectory
    }

    package var authenticatedBytes: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Self.magic)
        writer.append(Self.formatVersion)
        writer.append(features.rawValue)
        writer.append(volume)
        writer.append(created)
        writer.append(rootDirectory)
        if !settings.isEmpty {
            writer.append(UInt16(settings.count))
            for (setting, value) in settings.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
                writer.append(setting.rawValue)
                writer.append(value)
            }
        }
        return writer.bytes
    }

    package init(parsing bytes: UnsafeRawBufferPointer) throws(FormatError) {
        var reader = ByteReader(bytes, of: Self.object)
        try reader.expect(magic: Self.magic, version: Self.formatVersion)
        features = FeatureFlags(rawValue: try reader.read())
        guard features.isSubset(of: .known.union(.integrity)), features.isSuperset(of: .ofEachVolume) else {
            throw FormatError(.unknownFeature, Self.object)
        }
        volume = try reader.readID()
        created = try reader.read()
        rootDirectory = try reader.readID()
        guard reader.remaining > 0 else { return }
        let count = try reader.read(UInt16.self)
        guard count > 0 else { throw FormatError(.malformed, Self.object) }
        var last: UInt16?
        for _ in 0..<count {
            let number = try reader.read(UInt16.self)
            // A setting that is not known could be one that forbids something.
            guard let setting = VolumeSetting(rawValue: number) else { throw FormatError(.unknownFeature, Self.object) }
            guard last.map({ $0 < number }) ?? true else { throw FormatError(.malformed, Self.object) }
            last = number
            settings[setting] = try reader.read()
        }
        try reader.expectEnd()
    }
}

/// A decision of the operator's that belongs to the volume (FORMAT §8).
package enum VolumeSetting: UInt16, Sendable, CaseIterable {
    /// Seconds after a lease's end in which keys may still be used while their owner cannot be reached. Default 0: fail closed.
    case graceSeconds = 1
    /// 1: the volume was made with an audit log, so that one that is gone was taken away (AUDIT.md).
    case audited = 2
    /// Cryptoperiods of DEKs, KEKs and CMKs in seconds; not there: none (ROTATION.md, Schedule).
    case dekPeriod = 3
    case kekPeriod = 4
    case cmkPeriod = 5
    /// How long before the end of a cryptoperiod it is told, in seconds.
    case warnPeriod = 6
    /// What is rotated without anybody's doing: bit 0 KEKs, bit 1 DEKs.
    case automaticRotation = 7
    /// Goes up with each change of the cryptoperiods, so that a host that saw a later one notices an older description.
    case policyRevision = 8
}

/// `.lethefs/state`: which mounts there were, and whether the last one ended well (FORMAT §8).
package struct VolumeState: Equatable, Sendable {
    package static let magic = Array("LETHESTA".utf8)
    package static let formatVersion: UInt16 = 1
    private static let object: StaticString = "volume state"

    package var volume: UniqueID
    /// Counts the mounts; each header names the one that stored it.
    package var epoch: UInt64
    /// A mount is under way, or ended without saying so.
    package var mounted: Bool
    /// The last epoch that ended in a crash. Sizes and holes in headers of that epoch or an older one may lag.
    package var lastCrashedEpoch: UInt64

    package init(volume: UniqueID, epoch: UInt64, mounted: Bool, lastCrashedEpoch: UInt64) {
        self.volume = volume
        self.epoch = epoch
        self.mounted = mounted
        self.lastCrashedEpoch = lastCrashedEpoch
    }

    package var authenticatedBytes: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Self.magic)
        writer.append(Self.formatVersion)
        writer.append(volume)
        writer.append(epoch)
        writer.append(UInt8(mounted ? 1 : 0))
        writer.append(lastCrashedEpoch)
        return writer.bytes
    }

    package init(parsing bytes: UnsafeRawBufferPointer) throws(FormatError) {
        var reader = ByteReader(bytes, of: Self.object)
        try reader.expect(magic: Self.magic, version: Self.formatVersion)
        volume = try reader.readID()
        epoch = try reader.read()
        let mounted: UInt8 = try reader.read()
        guard mounted <= 1 else { throw FormatError(.malformed, Self.object) }
        self.mounted = mounted == 1
        lastCrashedEpoch = try reader.read()
        try reader.expectEnd()
    }
}

/// A file of the volume's directory: authenticated bytes, then KEK version 4 | MAC 32 by zone 0.
package struct SealedFile: Equatable, Sendable {
    package static let trailer = 36
    package var body: [UInt8]
    package var kekVersion: KeyVersion
    package var mac: [UInt8]

    package init(body: [UInt8], kekVersion: KeyVersion, mac: [UInt8]) {
        self.body = body
        self.kekVersion = kekVersion
        self.mac = mac
    }

    package var encoded: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: body)
        writer.append(kekVersion.rawValue)
        writer.append(contentsOf: mac)
        return writer.bytes
    }

    package init(parsing bytes: [UInt8], of object: StaticString) throws(FormatError) {
        guard bytes.count > Self.trailer else { throw FormatError(.truncated, object) }
        body = Array(bytes.dropLast(Self.trailer))
        let trailer = Array(bytes.suffix(Self.trailer))
        kekVersion = KeyVersion(
            rawValue: UInt32(trailer[0]) | UInt32(trailer[1]) << 8 | UInt32(trailer[2]) << 16 | UInt32(trailer[3]) << 24
        )
        mac = Array(trailer.dropFirst(4))
    }
}
