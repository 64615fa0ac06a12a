import CLinux
import Storage
import VolumeFormat

/// Counts files and bytes by names and lower lengths alone, so that a long sweep can tell how much there is. Files with several names
/// count as often; whoever asks takes it for an estimate.
final class CountSweep: SweepVisitor {
    private let zone: ZoneID
    private let control: SweepControl
    private let other: SweepControl

    /// Counts into `control`, and ends when `other` is told to.
    init(_ zone: ZoneID, _ control: SweepControl, endingWith other: SweepControl) {
        self.zone = zone
        self.control = control
        self.other = other
    }

    func wants(_ zone: ZoneID) -> Bool { zone == self.zone }
    func visit(_ directory: SweepDirectory) throws(Errno) {}

    func visitFile(_ entry: SweepEntry, thread: Int) throws(Errno) {
        if other.isCancelled { control.cancel() }
        guard case .named(let directory, let name) = entry else { return }
        let info = try directory.place.stat(name)
        control.count {
            $0.files += 1
            $0.bytes.addUpToMaximum(Volume.plainSize(info))
        }
    }

    func visitOther(_ entry: SweepEntry, isLink: Bool, thread: Int) throws(Errno) {}
    func finish(thread: Int) {}
}
