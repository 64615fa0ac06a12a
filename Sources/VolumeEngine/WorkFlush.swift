import CLinux
import Storage

/// The flushes of a piece of work that lets keys go in the end, by a descriptor of its own: the kernel tells of a failure once through each,
/// and somebody else might have been told.
///
/// A flush that failed, this one or any other of the mount, ends all such work until the volume is mounted again: what was written
/// before it may be lost although it can still be read, and nothing tells which of it.
struct WorkFlush {
    private let volume: Volume
    private let descriptor: Descriptor

    /// Before the work writes anything.
    init(_ volume: Volume) throws(VolumeError) {
        guard !volume.hasLostFlush else { throw .lostFlush }
        self.volume = volume
        do throws(Errno) {
            descriptor = try Lower.open(volume.lowerRoot, ".", flags: O_RDONLY | O_DIRECTORY, for: .daemon)
        } catch { throw .lower(error, "opening the lower directory") }
    }

    /// Returns when all that was written before is durable. `purpose` words what it is for.
    func run(_ purpose: String) throws(VolumeError) {
        do throws(Errno) { try Lower.syncAll(descriptor) } catch {
            volume.noteLostFlush([])
            throw .lower(error, purpose)
        }
        guard !volume.hasLostFlush else { throw .lostFlush }
    }
}
