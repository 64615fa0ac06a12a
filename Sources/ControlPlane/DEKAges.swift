import VolumeEngine

/// How old the DEKs of a zone's files were when they were last counted: kept, so that a look at the clock tells what is due without
/// reading the headers again. A count in steps of time; every DEK counts from the beginning of its step.
package struct DEKAges: Codable, Sendable, Equatable {
    /// When the count began, in seconds since 1970: what was made later is younger.
    package var counted: UInt64
    package var files: UInt64 = 0
    /// The oldest current DEK of a file; 0 if there is none.
    package var oldest: UInt64 = 0
    /// How many were made in which step, by its beginning.
    package var made: [UInt64: UInt64] = [:]
    /// The same of directories, whose DEKs are not replaced.
    package var directories: [UInt64: UInt64] = [:]
    /// Objects whose header could not be read.
    package var failed: UInt64 = 0

    package init(counted: UInt64) { self.counted = counted }

    package init(counted: UInt64, _ coverage: Coverage) {
        self.counted = counted
        files = coverage.filesByAge.values.reduce(0, +)
        oldest = coverage.oldestDEK
        made = coverage.filesByAge
        directories = coverage.directoriesByAge
        failed = coverage.failed
    }

    /// Length of a step for a period: a hundredth of it, so that what is told is as exact as that.
    package static func step(of period: UInt64) -> UInt64 { max(1, period / 100) }

    /// No file's DEK is older than this.
    package var floor: UInt64 { files == 0 ? counted : min(oldest, counted) }

    /// Whether no file's DEK was made longer than `period` ago.
    package func isFree(ofOlderThan period: UInt64, now: UInt64) -> Bool {
        now <= period || Self.count(made, madeBefore: now - period) == 0
    }

    static func count(_ ages: [UInt64: UInt64], madeBefore time: UInt64) -> UInt64 {
        ages.reduce(0) { $1.key < time ? $0 + $1.value : $0 }
    }
}
