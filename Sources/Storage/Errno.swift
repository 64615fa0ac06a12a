import CLinux

/// An errno(3) value.
package struct Errno: Error, RawRepresentable, Hashable, Sendable {
    package var rawValue: Int32
    package init(rawValue: Int32) { self.rawValue = rawValue }
    package init(_ rawValue: Int32) { self.rawValue = rawValue }

    /// The calling thread's errno.
    @inline(__always) package static var current: Errno { Errno(linux_get_errno()) }

    package static let perm = Errno(EPERM)
    package static let noEntry = Errno(ENOENT)
    package static let interrupted = Errno(EINTR)
    package static let io = Errno(EIO)
    package static let badDescriptor = Errno(EBADF)
    package static let again = Errno(EAGAIN)
    package static let noMemory = Errno(ENOMEM)
    package static let access = Errno(EACCES)
    package static let exists = Errno(EEXIST)
    package static let crossDevice = Errno(EXDEV)
    package static let notDirectory = Errno(ENOTDIR)
    package static let isDirectory = Errno(EISDIR)
    package static let invalid = Errno(EINVAL)
    package static let fileTooBig = Errno(EFBIG)
    package static let noSpace = Errno(ENOSPC)
    package static let quota = Errno(EDQUOT)
    package static let readOnly = Errno(EROFS)
    package static let range = Errno(ERANGE)
    package static let nameTooLong = Errno(ENAMETOOLONG)
    package static let notEmpty = Errno(ENOTEMPTY)
    package static let loop = Errno(ELOOP)
    package static let noData = Errno(ENODATA)
    package static let stale = Errno(ESTALE)
    package static let notSupported = Errno(EOPNOTSUPP)
    /// A FUSE server says so of a request that the kernel then makes no more.
    package static let notImplemented = Errno(ENOSYS)
    package static let noSuchDevice = Errno(ENXIO)
    package static let busy = Errno(EBUSY)
    package static let textBusy = Errno(ETXTBSY)
    package static let tooManyLinks = Errno(EMLINK)
    package static let tooManyOpenFiles = Errno(EMFILE)
    package static let noKey = Errno(ENOKEY)
    package static let keyRevoked = Errno(EKEYREVOKED)

    /// strerror(3).
    package var message: String { String(cString: strerror(rawValue)) }
}
