import CLinux
import VolumeEngine

/// A page of memory that the daemon writes and its guardian reads: what the guardian has to know of a daemon that can no longer be asked.
///
/// It lives as long as the process: whoever writes to it need not ask.
package final class GuardianPage: Sendable {
    static let size = 4096
    /// Made by the daemon, and handed to every guardian of this mount.
    let descriptor: Int32
    /// The highest node number that the kernel was ever given.
    package let highestNode: SharedWord
    /// Nanoseconds of CLOCK_BOOTTIME; 0 when there is nothing to enforce.
    let leaseEnd: SharedWord

    /// `nil` when the system has no memory for it.
    package init?() {
        let descriptor = linux_memory_file("lethefs-guardian")
        guard descriptor >= 0 else { return nil }
        // Sealed: a shorter file would mean SIGBUS for the daemon.
        guard ftruncate(descriptor, off_t(Self.size)) == 0, linux_seal_size(descriptor) == 0,
            let memory = Self.map(descriptor, PROT_READ | PROT_WRITE)
        else {
            close(descriptor)
            return nil
        }
        self.descriptor = descriptor
        highestNode = SharedWord(memory)
        leaseEnd = SharedWord(memory + 8)
    }

    /// The guardian's view.
    init?(inherited descriptor: Int32) {
        guard let memory = Self.map(descriptor, PROT_READ) else { return nil }
        self.descriptor = descriptor
        highestNode = SharedWord(memory)
        leaseEnd = SharedWord(memory + 8)
    }

    private static func map(_ descriptor: Int32, _ protection: Int32) -> UnsafeMutableRawPointer? {
        let memory = mmap(nil, size, protection, MAP_SHARED, descriptor, 0)
        return memory == UnsafeMutableRawPointer(bitPattern: -1) ? nil : memory
    }
}
