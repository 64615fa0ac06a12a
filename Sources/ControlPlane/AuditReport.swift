/// What `audit verify` found. Its names are those of the JSON answer, and stay.
package struct AuditReport: Codable, Sendable, Equatable {
    package enum What: String, Codable, Sendable {
        /// A record's content does not fit its hash.
        case changed
        /// Records that the numbering wants are not there.
        case missing
        /// A record of a number that another one has.
        case inserted
        /// A record stands at another place than its number says.
        case reordered
        /// A record does not follow the one before: one of the two was made anew.
        case broken
        /// A line that is no record.
        case malformed
        /// A checkpoint's signature does not fit, or the key is unknown.
        case signature
        /// The log's keys are not the volume's.
        case key
        /// The log does not hold the record that was sealed, or that this host remembers.
        case head
        /// The daemon itself found something amiss, and wrote it down.
        case told
        /// A sealed file of the log is not authentic, or not there.
        case seal
        /// The log belongs to another volume, or begins with something else than its beginning.
        case beginning
    }

    package struct Finding: Codable, Sendable, Equatable {
        package var what: What
        /// Number of the record, of the first one where several are meant; `nil` where no number is known.
        package var sequence: UInt64?
        /// Number of the last one, where several are meant.
        package var last: UInt64?
        /// Line in the file, from 1.
        package var line: Int?
        package var detail: String

        package init(_ what: What, _ sequence: UInt64?, last: UInt64? = nil, line: Int? = nil, _ detail: String) {
            self.what = what
            self.sequence = sequence
            self.last = last
            self.line = line
            self.detail = detail
        }
    }

    package var records = 0
    package var firstTime: String?
    package var lastTime: String?
    package var checkpoints = 0
    package var signedCheckpoints = 0
    /// The last record that a good signature covers; 0 where there is none.
    package var signedThrough: UInt64 = 0
    /// The record that the sealed head names, once it was found in the log; `nil` where there was no seal to check.
    package var sealedThrough: UInt64?
    /// The record that this host remembered, once it was found in the log.
    package var rememberedThrough: UInt64?
    /// Where trust in the public key comes from.
    package var keySource = AuditKeySource.none
    /// SHA-256 of each public key.
    package var keys: [String] = []
    package var findings: [Finding] = []
    /// What is no damage, and worth knowing.
    package var notes: [String] = []

    package init() {}
}

/// Who says that a public key is this volume's.
package enum AuditKeySource: String, Codable, Sendable {
    /// `.lethefs/audit/key`, authenticated by the KEK.
    case sealed
    /// This host's own record.
    case host
    /// The log's own first record, and nobody else.
    case log
    /// There is no key: the log is not signed.
    case none
}

/// What a log is checked against.
package struct AuditTrust: Sendable {
    package var volume: String?
    package var keys: [[UInt8]] = []
    package var keySource = AuditKeySource.none
    package var sealedHead: (sequence: UInt64, hash: [UInt8])?
    package var remembered: (sequence: UInt64, hash: [UInt8])?
    /// Seals that do not hold, in words.
    package var brokenSeals: [String] = []
    /// The volume is mounted: a line at the end may be under way.
    package var isLive = false

    package init() {}
}
