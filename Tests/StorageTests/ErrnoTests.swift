import CLinux
import Storage
import Testing

@Suite struct ErrnoTests {
    /// Each name is the number of errno(3).
    static let table: [(Errno, Int32)] = [
        (.perm, 1), (.noEntry, 2), (.interrupted, 4), (.io, 5), (.noSuchDevice, 6), (.badDescriptor, 9), (.again, 11),
        (.noMemory, 12), (.access, 13), (.busy, 16), (.exists, 17), (.crossDevice, 18), (.notDirectory, 20),
        (.isDirectory, 21), (.invalid, 22), (.textBusy, 26), (.fileTooBig, 27), (.noSpace, 28), (.readOnly, 30),
        (.range, 34), (.nameTooLong, 36), (.notEmpty, 39), (.loop, 40), (.noData, 61), (.notSupported, 95),
        (.stale, 116), (.noKey, 126), (.keyRevoked, 128),
    ]

    @Test(arguments: table)
    func numbers(errno: Errno, number: Int32) {
        #expect(errno.rawValue == number)
        #expect(Errno(rawValue: number) == errno)
        #expect(!errno.message.isEmpty)
    }

    @Test func current() {
        linux_set_errno(ENOSPC)
        #expect(Errno.current == .noSpace)
        #expect(Errno.noSpace.message == "No space left on device")
    }
}
