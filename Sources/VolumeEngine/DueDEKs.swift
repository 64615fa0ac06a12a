import VolumeFormat

/// Which DEKs a re-encryption replaces: those of before it began.
struct DueDEKs: Sendable {
    /// Seconds since 1970: what was made then or before is due. 0 where no file is.
    let cutoff: UInt64
    /// Whether those dated after the present are due as well: they were made while the clock was ahead, and so before, too.
    let takesAhead: Bool

    /// A clock that is set by less did not date anything wrongly: programs make DEKs all the time.
    private static let toleranceSeconds: UInt64 = 300

    /// What the sweep makes itself is dated by `date(now:)`, and not due.
    func includes(_ created: UInt64, now: UInt64) -> Bool {
        created <= cutoff || (takesAhead && created > date(now: now) &+ Self.toleranceSeconds)
    }

    /// Of a new DEK: never before the moment that it is to be newer than, whatever the clock says.
    func date(now: UInt64) -> UInt64 { max(now, cutoff + 1) }
}

extension DueDEKs {
    /// A note from before there was that flag spares them, too, where it is for links alone.
    init(_ work: PendingWork) {
        self.init(
            cutoff: work.started, takesAhead: work.started > 0 && !work.flags.contains(.sparesAhead))
    }
}
