/// Work on a zone that outlives a mount: listed in the keyring, under its MACs, until it is done (FORMAT §6).
package struct PendingWork: Equatable, Sendable {
    package enum Kind: UInt8, Sendable, CaseIterable {
        /// Every DEK gets wrapped by the newest KEK.
        case rewrap = 1
        /// Every DEK made before `started` is replaced, and what it sealed is sealed anew. So is one that is dated after the present,
        /// unless a flag says otherwise.
        case reencrypt = 2
        /// As a rewrap; then every KEK version below `version` is destroyed, in the keyring and in the token.
        case shred = 3
        /// KEK `version` was destroyed in the keyring, or wrapped anew: version keys of it that the keyring does not use are to be
        /// destroyed in the tokens.
        case purge = 4
        /// The directory `scope` and all below it is becoming this zone's: what still says `source` there is on its way.
        case assign = 5
    }

    package struct Flags: OptionSet, Sendable {
        package var rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        /// Nothing is done until it is resumed.
        package static let paused = Flags(rawValue: 1 << 0)
        /// Programs go first.
        package static let yields = Flags(rawValue: 1 << 1)
        /// Of a re-encryption: DEKs dated after the present are left as they are.
        package static let sparesAhead = Flags(rawValue: 1 << 2)
        static let known: Flags = [.paused, .yields, .sparesAhead]
    }

    package var kind: Kind
    package var flags: Flags
    /// The KEK version that it leads to; of an assignment the number of the source zone (see `source`).
    package var version: KeyVersion
    /// Seconds since 1970.
    package var started: UInt64
    /// MB (10^6 bytes) a second at most; 0 for no limit.
    package var rate: UInt32
    /// UUID of the directory or file that it is limited to; zero for the whole zone.
    package var scope: UniqueID

    package static let wholeZone = UniqueID(high: 0, low: 0)
    package static let maximumCount = 64

    package init(
        _ kind: Kind, version: KeyVersion, started: UInt64, flags: Flags = [], rate: UInt32 = 0,
        scope: UniqueID = PendingWork.wholeZone
    ) {
        self.kind = kind
        self.flags = flags
        self.version = version
        self.started = started
        self.rate = rate
        self.scope = scope
    }

    /// An assignment of the directory `scope` to the zone in whose keyring it is noted, from another one.
    package init(assign scope: UniqueID, from source: ZoneID, started: UInt64) {
        self.init(.assign, version: KeyVersion(rawValue: source.rawValue), started: started, scope: scope)
    }

    /// The same piece of work, however it is to be done now.
    package func isSame(as other: PendingWork) -> Bool {
        kind == other.kind && version == other.version && started == other.started && scope == other.scope
    }

    /// Of an assignment: the zone that the tree comes from. `nil` of other work.
    package var source: ZoneID? { kind == .assign ? ZoneID(rawValue: version.rawValue) : nil }

    static func encode(_ list: [PendingWork], into writer: inout ByteWriter) {
        writer.append(UInt8(list.count))
        for work in list {
            writer.append(work.kind.rawValue)
            writer.append(work.flags.rawValue)
            writer.append(work.version.rawValue)
            writer.append(work.started)
            writer.append(work.rate)
            writer.append(work.scope)
        }
    }

    static func decode(from reader: inout ByteReader, of object: StaticString) throws(FormatError) -> [PendingWork] {
        let count = Int(try reader.read(UInt8.self))
        guard (1...maximumCount).contains(count) else { throw FormatError(.malformed, object) }
        var list: [PendingWork] = []
        for _ in 0..<count {
            guard let kind = Kind(rawValue: try reader.read()) else { throw FormatError(.malformed, object) }
            let flags = Flags(rawValue: try reader.read())
            guard flags.isSubset(of: .known) else { throw FormatError(.malformed, object) }
            list.append(
                PendingWork(
                    kind, version: KeyVersion(rawValue: try reader.read()), started: try reader.read(), flags: flags,
                    rate: try reader.read(), scope: try reader.readID()))
        }
        return list
    }
}
