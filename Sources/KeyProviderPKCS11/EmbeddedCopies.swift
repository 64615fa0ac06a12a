import CLinux
import Glibc
import KeyManagement

/// Copies of what an embedded token cannot do without.
///
/// SoftHSM2 writes `tokens/UUID/token.object` anew at each login, in place: it cuts the file to nothing first. Whoever ends the process at that
/// moment (SIGKILL, a power cut) leaves it empty, or full of zeros, and all keys of the token lost. What changes in it are flags and a
/// counter; what the keys need, the token's label and its key under the PINs, stays as it was made until somebody changes a PIN. So it is kept once
/// more:
///
///     DIRECTORY/copies/UUID        token.object, as it was when it was first seen whole, or at the first login after a change
struct EmbeddedCopies {
    let layout: EmbeddedLayout

    private static let largest = 1 << 16

    /// Puts back what is empty, and keeps what is not kept yet. Before the library is started.
    func mend() throws(RootError) {
        guard access(layout.tokens, F_OK) == 0 else { return }
        try EmbeddedFile.makeDirectory(layout.copies)
        for name in try EmbeddedFile.entries(layout.tokens) where !name.hasPrefix(".") {
            let (object, copy) = ("\(layout.tokens)/\(name)/token.object", "\(layout.copies)/\(name)")
            guard let bytes = try Self.read(object) else { continue }
            if Self.isLost(bytes) {
                if let kept = try Self.read(copy), !Self.isLost(kept) { try Self.putBack(kept, to: object) }
            } else if access(copy, F_OK) != 0 {
                try EmbeddedFile.write(bytes, to: copy)
            }
        }
    }

    /// After a login to the token with that serial number: a copy that opens by another PIN, or otherwise, is replaced. It would bring the old
    /// PIN back.
    func follow(serial: String) throws(RootError) {
        for name in try EmbeddedFile.entries(layout.tokens) where !name.hasPrefix(".") {
            let (object, copy) = ("\(layout.tokens)/\(name)/token.object", "\(layout.copies)/\(name)")
            guard let bytes = try Self.readLocked(object), let token = EmbeddedObject(bytes),
                token.isToken(serial: serial)
            else { continue }
            if let kept = try Self.read(copy).flatMap({ EmbeddedObject($0) }), kept.opensAs(token) { return }
            return try EmbeddedFile.write(bytes, to: copy)
        }
    }

    private static func isLost(_ bytes: [UInt8]) -> Bool { bytes.allSatisfy { $0 == 0 } }

    /// `nil` where there is no such file, and for one that is no token's.
    private static func read(_ path: String) throws(RootError) -> [UInt8]? {
        let file = linux_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0)
        guard file >= 0 else {
            guard errno == ENOENT || errno == ENOTDIR else { throw EmbeddedFile.failure("open", path) }
            return nil
        }
        defer { close(file) }
        return try read(file, path)
    }

    private static func read(_ file: Int32, _ path: String) throws(RootError) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: largest)
        let count = pread(file, &bytes, bytes.count, 0)
        guard count >= 0 else { throw EmbeddedFile.failure("read", path) }
        return count < largest ? Array(bytes[..<count]) : nil
    }

    /// As another process that is logging in leaves it, not as it finds it cut. (This process is not within SoftHSM2 now, whose locks would end.)
    private static func readLocked(_ path: String) throws(RootError) -> [UInt8]? {
        let file = linux_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var whole = flock()
        whole.l_type = Int16(F_RDLCK)
        // Who holds it may hang; then the next login sees to it.
        guard fcntl(file, F_SETLK, &whole) == 0 else { return nil }
        return try read(file, path)
    }

    /// In place, under the lock that SoftHSM2 takes: another process may be logging in just now.
    private static func putBack(_ kept: [UInt8], to path: String) throws(RootError) {
        let file = linux_openat(AT_FDCWD, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0)
        guard file >= 0 else { throw EmbeddedFile.failure("open", path) }
        defer { close(file) }
        var whole = flock()
        whole.l_type = Int16(F_WRLCK)
        guard fcntl(file, F_SETLKW, &whole) == 0 else { throw EmbeddedFile.failure("lock", path) }
        // By this descriptor: closing another one of the file would end the lock.
        guard let now = try read(file, path), isLost(now) else { return }
        guard pwrite(file, kept, kept.count, 0) == kept.count, ftruncate(file, off_t(kept.count)) == 0, fsync(file) == 0
        else { throw EmbeddedFile.failure("write", path) }
    }
}
