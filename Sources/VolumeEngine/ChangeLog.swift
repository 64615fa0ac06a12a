import VolumeFormat

/// The changes that programs made to a file's pages: how many there were, and which pages the last ones touched. Whoever prepares something from
/// the pages while the file is held shared finds out by it whether that still holds.
struct ChangeLog {
    private struct Pages {
        var first: UInt64 = 0
        var last: UInt64 = 0
    }

    /// Goes up with each change.
    private(set) var count: UInt64 = 0
    /// By number, modulo its length.
    private var recent = InlineArray<16, Pages>(repeating: Pages())

    /// A change of pages from `first` to `last`.
    mutating func note(_ first: PageIndex, _ last: PageIndex) {
        recent[Int(count % UInt64(recent.count))] = Pages(first: first.rawValue, last: last.rawValue)
        count &+= 1
    }

    /// A change that may concern any page.
    mutating func noteAll() { note(PageIndex(rawValue: 0), PageIndex(rawValue: .max)) }

    /// Whether any of the pages may have changed since there were `known` changes.
    func hasTouched(_ first: PageIndex, _ last: PageIndex, since known: UInt64) -> Bool {
        let missed = count &- known
        guard missed <= UInt64(recent.count) else { return true }
        for number in 0..<missed {
            let pages = recent[Int((known &+ number) % UInt64(recent.count))]
            if pages.first <= last.rawValue, first.rawValue <= pages.last { return true }
        }
        return false
    }
}
