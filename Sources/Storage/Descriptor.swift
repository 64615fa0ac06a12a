import CLinux

/// An open file descriptor, closed when the last reference goes: a thread that uses it keeps it open.
package final class Descriptor: Sendable {
    package let raw: Int32

    package init(owning raw: Int32) { self.raw = raw }

    /// A path to the same object, for calls that take no descriptor of an O_PATH kind.
    package var procPath: String { "/proc/self/fd/\(raw)" }

    deinit { close(raw) }
}
