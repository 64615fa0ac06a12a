extension ZoneKeyring {
    private static let maximumURI = 4096
    private static let maximumKeys = maximumKEKs

    /// All but the MACs.
    package var authenticatedBytes: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Self.magic)
        writer.append(Self.formatVersion)
        writer.append(features.union(pending.isEmpty ? [] : .pendingWork).rawValue)
        writer.append(volume)
        writer.append(zone.rawValue)
        writer.append(generation)
        writer.append(policy.rawValue)
        writer.append(UInt8(cmks.count))
        for cmk in cmks {
            writer.append(prefixed: Array(cmk.uri.utf8))
            StateChange.encode(cmk.history, into: &writer)
        }
        writer.append(UInt16(keks.count))
        for kek in keks {
            writer.append(kek.version.rawValue)
            StateChange.encode(kek.history, into: &writer)
            writer.append(UInt8(kek.wraps.count))
            for wrap in kek.wraps {
                writer.append(wrap.cmk)
                writer.append(wrap.share)
                writer.append(wrap.wrap.algorithm.rawValue)
                writer.append(prefixed: wrap.wrap.blob)
            }
        }
        writer.append(UInt16(metadataKeys.count))
        for key in metadataKeys {
            writer.append(key.version.rawValue)
            writer.append(key.kekVersion.rawValue)
            writer.append(key.created)
            writer.append(contentsOf: key.wrapped.bytes)
        }
        if !pending.isEmpty { PendingWork.encode(pending, into: &writer) }
        return writer.bytes
    }

    /// The whole file: the authenticated bytes, then the MACs.
    package var encoded: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: authenticatedBytes)
        writer.append(UInt16(macs.count))
        for mac in macs {
            writer.append(mac.kekVersion.rawValue)
            writer.append(contentsOf: mac.code)
        }
        return writer.bytes
    }

    /// Reads a whole keyring; the caller authenticates `authenticatedBytes` (re-encoding gives the same bytes).
    package init(parsing bytes: [UInt8]) throws(FormatError) {
        guard bytes.count <= Self.maximumEncodedSize else { throw FormatError(.malformed, Self.object) }
        self = try bytes.withUnsafeBufferPointer { (buffer) throws(FormatError) in
            var reader = ByteReader(UnsafeRawBufferPointer(buffer), of: Self.object)
            return try ZoneKeyring(from: &reader)
        }
    }

    private init(from reader: inout ByteReader) throws(FormatError) {
        try reader.expect(magic: Self.magic, version: Self.formatVersion)
        features = FeatureFlags(rawValue: try reader.read())
        let hasPending = features.remove(.pendingWork) != nil
        guard features.isSubset(of: .known) else { throw FormatError(.unknownFeature, Self.object) }
        volume = try reader.readID()
        zone = ZoneID(rawValue: try reader.read())
        generation = try reader.read()
        guard let policy = Policy(rawValue: try reader.read()) else { throw FormatError(.malformed, Self.object) }
        self.policy = policy
        cmks = []
        for _ in 0..<(try Self.count(UInt8.self, 1...Self.maximumCMKs, &reader)) {
            let raw = try reader.readPrefixed(limit: Self.maximumURI)
            guard let uri = String(validating: raw, as: UTF8.self), !uri.isEmpty else {
                throw FormatError(.malformed, Self.object)
            }
            cmks.append(CMK(uri: uri, history: try StateChange.decode(from: &reader, of: Self.object)))
        }
        keks = []
        for _ in 0..<(try Self.count(UInt16.self, 1...Self.maximumKeys, &reader)) {
            keks.append(try Self.readKEK(&reader, cmkCount: cmks.count))
        }
        metadataKeys = []
        for _ in 0..<(try Self.count(UInt16.self, 1...Self.maximumKeys, &reader)) {
            metadataKeys.append(
                MetadataKey(
                    version: KeyVersion(rawValue: try reader.read()),
                    kekVersion: KeyVersion(rawValue: try reader.read()),
                    created: try reader.read(), wrapped: try WrappedKey(from: &reader)))
        }
        if hasPending { pending = try PendingWork.decode(from: &reader, of: Self.object) }
        macs = []
        for _ in 0..<(try Self.count(UInt16.self, 1...Self.maximumKeys, &reader)) {
            macs.append(MAC(kekVersion: KeyVersion(rawValue: try reader.read()), code: try reader.readBytes(32)))
        }
        try reader.expectEnd()
        guard Set(keks.map(\.version)).count == keks.count, Set(metadataKeys.map(\.version)).count == metadataKeys.count
        else { throw FormatError(.malformed, Self.object) }
    }

    private static func readKEK(_ reader: inout ByteReader, cmkCount: Int) throws(FormatError) -> KEK {
        let version = KeyVersion(rawValue: try reader.read())
        let history = try StateChange.decode(from: &reader, of: object)
        var wraps: [Wrap] = []
        for _ in 0..<(try count(UInt8.self, 0...maximumCMKs, &reader)) {
            let cmk: UInt8 = try reader.read()
            let share: UInt8 = try reader.read()
            guard Int(cmk) < cmkCount, let algorithm = WrapAlgorithm(rawValue: try reader.read()) else {
                throw FormatError(.malformed, object)
            }
            let blob = try reader.readPrefixed(limit: RootWrap.maximumBlob)
            wraps.append(Wrap(cmk: cmk, share: share, wrap: RootWrap(algorithm: algorithm, blob: blob)))
        }
        guard version.rawValue > 0 else { throw FormatError(.malformed, object) }
        return KEK(version: version, history: history, wraps: wraps)
    }

    private static func count<I: FixedWidthInteger>(
        _: I.Type, _ bounds: ClosedRange<Int>, _ reader: inout ByteReader
    ) throws(FormatError) -> Int {
        let count = Int(try reader.read(I.self))
        guard bounds.contains(count) else { throw FormatError(.malformed, object) }
        return count
    }
}
