import Storage
import Synchronization
import TestSupport
import Testing

@Suite struct FaultInjectionTests {
    private let temporary: TemporaryDirectory
    private let directory: Descriptor

    init() throws {
        temporary = try TemporaryDirectory()
        directory = try Lower.open(path: temporary.path, flags: OpenFlags.readDirectory)
    }

    private func stats(_ count: Int) -> [Errno?] {
        (0..<count).map { _ in
            do throws(Errno) {
                _ = try Lower.stat(directory)
                return nil
            } catch { return error }
        }
    }

    @Test(arguments: 1...5)
    func theNthCallFailsOnce(nth: Int) {
        FaultInjection.arm(nth: nth, of: [.fstat], fault: .errno(.noSpace))
        let results = stats(5)
        #expect(FaultInjection.disarm() == 5)
        for (index, result) in results.enumerated() { #expect(result == (index + 1 == nth ? .noSpace : nil)) }
        #expect(stats(5).allSatisfy { $0 == nil })
    }

    @Test func repeatsUntilDisarmed() {
        FaultInjection.arm(nth: 3, of: [.fstat], fault: .errno(.io), repeats: true)
        #expect(stats(6) == [nil, nil, .io, .io, .io, .io])
        FaultInjection.disarm()
        #expect(stats(1) == [nil])
        #expect(FaultInjection.disarm() == 0)
    }

    @Test func onlyTheCallsThatAreMeant() throws {
        FaultInjection.arm(nth: 1, of: [.pread, .pwrite], fault: .errno(.io), repeats: true)
        #expect(stats(2) == [nil, nil])
        try Lower.makeDirectory(directory, "made", mode: 0o700)
        #expect(FaultInjection.disarm() == 0)
    }

    /// Each call has its seam: armed, it fails with the errno it was told and does nothing.
    @Test(arguments: LowerCall.allCases)
    func everyCallCanFail(call: LowerCall) throws {
        let file = try Lower.open(directory, "file", flags: OpenFlags.create, mode: 0o600)
        let path = temporary["file"]
        FaultInjection.arm(nth: 1, of: [call], fault: .errno(.stale))
        defer { FaultInjection.disarm() }
        #expect(throws: Errno.stale) {
            switch call {
            case .openat: _ = try Lower.open(directory, "new", flags: OpenFlags.create, mode: 0o600)
            case .pread: _ = try Lower.readValue(file, at: 0, initial: UInt8(0))
            case .pwrite: try Lower.write(file, from: [1] as [UInt8], count: 1, at: 0)
            case .ftruncate: try Lower.truncate(file, to: 10)
            case .fstat: _ = try Lower.stat(file)
            case .mkdirat: try Lower.makeDirectory(directory, "new", mode: 0o700)
            case .unlinkat: try Lower.unlink(directory, "file")
            case .renameat2: try Lower.rename(directory, "file", directory, "new")
            case .linkat: try Lower.link(directory, "file", directory, "new")
            case .symlinkat: try Lower.symlink(target: "file", directory, "new")
            case .readlinkat: _ = try Lower.readLink(directory, "file")
            case .mknodat: try Lower.makeNode(directory, "new", mode: 0o100600, device: 0)
            case .fchmodat: try Lower.changeMode(directory, "file", to: 0o644)
            case .fchownat: try Lower.changeOwner(directory, "file", uid: 1, gid: 1)
            case .utimensat: try Lower.changeTimes(file, access: .init(), modification: .init())
            case .fsync: try Lower.sync(file)
            case .fdatasync: try Lower.sync(file, dataOnly: true)
            case .fallocate: try Lower.allocate(file, mode: 0, at: 0, count: 4096)
            case .lseek: _ = try Lower.seek(file, to: 0, whence: 3)
            case .getdents64:
                _ = try Lower.readDirectory(directory, into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
            case .getxattr: _ = try Lower.getAttribute(path: path, "user.x")
            case .setxattr:
                try Lower.setAttribute(
                    path: path, "user.x", UnsafeRawBufferPointer(start: nil, count: 0), flags: 0)
            case .listxattr: _ = try Lower.listAttributes(path: path)
            case .removexattr: try Lower.removeAttribute(path: path, "user.x")
            case .statvfs: _ = try Lower.statistics(directory)
            case .syncfs: try Lower.syncAll(directory)
            }
        }
        let info = try Lower.stat(directory, "file")
        #expect(info.st_size == 0 && info.st_nlink == 1 && info.st_mode & 0o777 == 0o600 && info.st_blocks == 0)
        #expect(throws: Errno.noEntry) { try Lower.stat(directory, "new") }
    }

    /// A plan is of the thread that armed it.
    @Test func otherThreadsAreLeftAlone() {
        FaultInjection.arm(nth: 1, of: [.fstat], fault: .errno(.io), repeats: true)
        let onOtherThread = Mutex<[Errno?]>([])
        runThread { onOtherThread.withLock { $0 = stats(3) } }
        #expect(onOtherThread.withLock { $0 } == [nil, nil, nil])
        #expect(stats(1) == [.io])
        FaultInjection.disarm()
    }
}
