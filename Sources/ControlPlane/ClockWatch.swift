/// Whether the wall clock may be believed when keys are rotated by it.
///
/// A clock that was set makes every key overdue at once, or none for years. So after a jump against the clock that counts seconds since
/// the machine's start, and where it shows less than the host has seen before, nothing is rotated for a while: whoever set it wrongly
/// has until then, and whoever set it right loses that much. A jump while nothing runs cannot be told from time that passed; then each
/// key is rotated once, and no more.
package struct ClockWatch: Sendable, Equatable {
    /// Slewing and rounding.
    static let tolerance: Int64 = 60

    /// The latest time that this host has seen while it believed the clock, in seconds since 1970.
    package private(set) var latest: UInt64
    private var offset: Int64?
    private var quietUntil: UInt64 = 0

    package init(latest: UInt64 = 0) { self.latest = latest }

    /// One look: `wall` in seconds since 1970, `running` in seconds since the machine's start. True when the clock may be believed;
    /// after a jump not before `quiet` seconds of the machine's time have passed.
    package mutating func look(wall: UInt64, running: UInt64, quiet: UInt64) -> Bool {
        let now = Int64(clamping: wall) - Int64(clamping: running)
        let jumped = offset.map { abs(now - $0) > Self.tolerance } ?? (wall + UInt64(Self.tolerance) < latest)
        offset = now
        if jumped {
            quietUntil = running + quiet
            latest = wall
        }
        guard running >= quietUntil else { return false }
        latest = max(latest, wall)
        return true
    }
}
