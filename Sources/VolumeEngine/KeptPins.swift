import Synchronization

/// Descriptors of files that lost one of several names: a convenience until another name is looked up, and kept while there are few.
/// Without it, a program that holds such a file by nothing but a path descriptor gets ESTALE.
final class KeptPins: Sendable {
    private let count = Atomic<Int>(0)

    /// One of them, which counts for as long as it lives.
    final class Pin: Sendable {
        private let pins: KeptPins
        fileprivate init(_ pins: KeptPins) { self.pins = pins }
        deinit { pins.count.subtract(1, ordering: .relaxed) }
    }

    /// `nil` when there are `limit` already.
    func take(atMost limit: Int) -> Pin? {
        let pin = count.add(1, ordering: .relaxed).newValue <= limit ? Pin(self) : nil
        if pin == nil { count.subtract(1, ordering: .relaxed) }
        return pin
    }
}
