import CLinux
import Synchronization

/// An open file descriptor, closed when the last reference goes: a thread that uses it keeps it open.
package final class Descriptor: Sendable {
    package let raw: Int32

    package init(owning raw: Int32) {
        self.raw = raw
        DescriptorBudget.inUse.add(1, ordering: .relaxed)
    }

    /// A path to the same object, for calls that take no descriptor of an O_PATH kind.
    package var procPath: String { "/proc/self/fd/\(raw)" }

    deinit {
        close(raw)
        DescriptorBudget.inUse.subtract(1, ordering: .relaxed)
    }
}

/// How many descriptors this process may hold for programs. The others below its limit are for itself: what its token, its logs,
/// its control socket and its guardian open must not depend on how many directories a program has open. (SoftHSM2, when it can open
/// no file, says that the token holds no such key.)
package enum DescriptorBudget {
    static let inUse = Atomic<Int>(0)
    private static let forPrograms = Atomic<Int>(.max)

    /// Of the process's limit a sixteenth stays for itself, at least 64 and at most 1024.
    package static func set(limit: Int) {
        forPrograms.store(max(0, limit - min(1024, max(64, limit / 16))), ordering: .relaxed)
    }

    /// So many are the transport's, for as long as the process runs.
    package static func takeAway(_ count: Int) {
        forPrograms.subtract(count, ordering: .relaxed)
    }

    /// On whose behalf something is opened.
    package enum Purpose { case programs, daemon }

    package static func check(_ purpose: Purpose = .programs) throws(Errno) {
        guard purpose == .programs else { return }
        if isSpent { throw .tooManyOpenFiles }
    }

    /// Programs have all that they may.
    package static var isSpent: Bool { inUse.load(ordering: .relaxed) >= forPrograms.load(ordering: .relaxed) }
}
