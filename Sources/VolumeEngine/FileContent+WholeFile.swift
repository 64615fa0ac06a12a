import Storage
import VolumeFormat

/// A new file that is written by one request, as most small ones are: the header that goes with its pages says "closed" at once, and nothing is
/// left to do when it is closed. A crash in between leaves what one at a close leaves (FORMAT §9).
extension FileContent {
    /// Whether a write makes all of a new file, as far as can be told. A request of full size is the first of several.
    ///
    /// Not where a page tree lists the pages: its root follows at the close.
    func isWholeFile(_ span: WriteSpan) -> Bool {
        stage == .unwritten && tree == nil && !tailIsDoubtful && span.first.rawValue == 0
            && span.end < UInt64(RequestBuffer.maximumRequest)
    }

    /// As `prepareHeader`, for such a file: the header is stored with the pages, and its bound covers these alone.
    func prepareWholeHeader(_ span: WriteSpan) -> Bool {
        header.slots[header.currentIndex].invocationBound +=
            UInt64(span.pages) - min(UInt64(span.pages), invocationsLeft)
        invocationsLeft = max(invocationsLeft, UInt64(span.pages))
        header.state = .closed
        header.size = span.newSize
        header.generation += 1
        header.epoch = volume.epoch
        return true
    }

    /// After header and pages: the lower length tells the size. Until it does, the header has to be stored again.
    func finishWholeFile(_ span: WriteSpan) throws(Errno) {
        stage = .stale
        noteStored()
        try Lower.truncate(descriptor, to: Geometry.lowerLength(forSize: span.newSize))
        lengthTellsSize = true
        stage = .closed
    }
}
