import CLinux
import Storage
import Testing
import VolumeEngine

/// Lower calls of each operation: what is measured with a stopwatch depends on the machine, this does not. A figure that goes up is a
/// slower file system, whatever the reason; one that goes down is put here.
@Suite struct CostTests {
    /// A volume with a file of three pages, closed, known to the kernel.
    private func sample() throws -> (TestVolume, Inode) {
        let test = try TestVolume(inMemory: true, features: [])
        try test.write("file", [UInt8](repeating: 7, count: 10_000))
        return (test, try test.lookUp("file").inode)
    }

    @Test func namesAndAttributes() throws {
        let (test, inode) = try sample()
        #expect(try calls { _ = try test.lookUp("file") } == 1)
        #expect(try calls { #expect(throws: Errno.noEntry) { try test.lookUp("other") } } == 1)
        #expect(try calls { _ = try test.volume.attributes(inode) } == 1)
        #expect(try calls { try test.rename("file", to: "moved") } == 3)
        // Looked at, pinned for those who have it open, removed.
        #expect(try calls { try test.unlink("moved") } == 3)
    }

    @Test func timesThatAreThereAlready() throws {
        let (test, inode) = try sample()
        var changes = AttributeChanges()
        changes.modificationTime = try test.volume.attributes(inode).st_mtim
        // The kernel sends them at once after each rename and removal; a thread that is held up between is given other chances.
        var counts: Set<Int> = []
        for _ in 0..<50 where !counts.contains(1) {
            try test.rename("file", to: "moved")
            counts.insert(try calls { _ = try test.volume.setAttributes(inode, changes) })
            try test.rename("moved", to: "file")
        }
        #expect(counts.contains(1))
        // A program that sets what has long been there changes the ctime.
        usleep(700_000)
        let before = try test.volume.attributes(inode).st_ctim
        let after = try test.volume.setAttributes(inode, changes).st_ctim
        #expect((before.tv_sec, before.tv_nsec) < (after.tv_sec, after.tv_nsec))
        try test.unlink("file")
        changes.modificationTime?.tv_nsec ^= 1
        let changed = try test.volume.setAttributes(inode, changes)
        #expect(changed.st_mtim.tv_nsec == changes.modificationTime?.tv_nsec)
    }

    /// A file that was removed while it was open is closed without a header that tells its size.
    @Test func timesOfWhatWasRemovedWhileOpen() throws {
        let test = try TestVolume(inMemory: true)
        let file = try test.create("file")
        try file.write([UInt8](repeating: 1, count: 100))
        let inode = try test.lookUp("file").inode
        try test.unlink("file")
        var changes = AttributeChanges()
        changes.modificationTime = try test.volume.attributes(inode).st_mtim
        file.close()
        let attributes = try test.volume.setAttributes(inode, changes)
        #expect(attributes.st_mtim.tv_nsec == changes.modificationTime?.tv_nsec)
        #expect(test.takeDamages().isEmpty)
    }

    @Test func aNewFile() throws {
        let test = try TestVolume(inMemory: true, features: [])
        var file: TestFile?
        // Created with its attributes; header and pages in one write, and the length; nothing is left for the close.
        #expect(try calls { file = try test.create("file") } == 2)
        let made = try #require(file)
        #expect(try calls { try made.write([UInt8](repeating: 1, count: 3000)) } == 2)
        #expect(try calls { made.close() } == 0)
        // One that comes in two requests, or more: header, length and times at the close.
        let longer = try test.create("longer")
        #expect(try calls { try longer.write([UInt8](repeating: 1, count: 1 << 20)) } == 1)
        #expect(try calls { try longer.write([UInt8](repeating: 1, count: 3000), at: 1 << 20) } == 1)
        #expect(try calls { longer.close() } == 4)
        #expect(try calls { try test.create("empty").close() } == 5)
    }

    @Test func content() throws {
        let (test, _) = try sample()
        var file: TestFile?
        #expect(try calls { file = try test.open("file", forWriting: false) } == 4)
        let reader = try #require(file)
        #expect(try calls { _ = try reader.read(at: 0, count: 10_000) } == 1)
        #expect(try calls { _ = try reader.read(at: 5000, count: 100) } == 1)
        #expect(try calls { reader.close() } == 0)
        let writer = try test.open("file")
        // The first write stores the header as open.
        #expect(try calls { try writer.write([UInt8](repeating: 2, count: 4064), at: 3552) } == 2)
        #expect(try calls { try writer.write([UInt8](repeating: 3, count: 4064), at: 3552) } == 1)
        // Of a page that is written in part the rest is read; of the page in which the last write ended it is not.
        #expect(try calls { try writer.write([4], at: 100) } == 2)
        #expect(try calls { try writer.write([5], at: 101) } == 1)
        // Between two pages of which a part is written lie others: these two are read apart.
        try writer.write([5], at: 4000)
        #expect(try calls { try writer.write([UInt8](repeating: 6, count: 5000), at: 3000) } == 3)
        #expect(try calls { try writer.sync() } == 1)
        writer.close()
    }

    @Test func appending() throws {
        let test = try TestVolume(inMemory: true, features: [])
        let file = try test.create("file")
        try file.write([1])
        // It was stored as closed: header and page, and the length no longer tells the size.
        #expect(try calls { try file.write([2], at: 1) } == 2)
        for size in 2..<20 { #expect(try calls { try file.write([2], at: size) } == 1) }
        file.close()
    }

    @Test func anOpenFilesAttributesNeedNoOpening() throws {
        let test = try TestVolume(inMemory: true, features: [])
        let file = try test.create("file")
        var changes = AttributeChanges()
        changes.mode = 0o600
        #expect(try calls { _ = try test.volume.setAttributes(file.inode, changes) } == 2)
        changes = AttributeChanges()
        changes.modificationTime = timespec(tv_sec: 1, tv_nsec: 2)
        #expect(try calls { _ = try test.volume.setAttributes(file.inode, changes) } == 2)
        file.close()
        changes = AttributeChanges()
        changes.mode = 0o640
        let closed = try test.lookUp("file").inode
        #expect(try calls { _ = try test.volume.setAttributes(closed, changes) } == 4)
    }

    /// What others make is given to them; set-ID bits come after that.
    @Test func othersFiles() throws {
        let test = try TestVolume(inMemory: true, features: [])
        func create(_ name: String, mode: mode_t) throws -> Int {
            try calls {
                let made = try name.utf8CString.withUnsafeBytes { name in
                    try test.volume.create(
                        test.top, UnsafeRawBufferPointer(rebasing: name.dropLast()), mode: mode, flags: O_RDWR,
                        Credentials(uid: 1234, gid: 1234))
                }
                test.volume.closeContent(made.content)
            }
        }
        // Creating and closing an empty file of one's own costs 5.
        let made = [try create("plain", mode: 0o644), try create("set-ID", mode: 0o4755)]
        #expect(made == [6, 8])
    }

    /// The kernel asks for security.capability of each file that is written, and for ACLs of each that is listed.
    @Test(arguments: ["security.capability", "system.posix_acl_access"]) func absentAttributes(name: String) throws {
        let (test, inode) = try sample()
        func ask() throws { #expect(throws: Errno.noData) { try test.volume.getAttribute(inode, name) } }
        try ask()
        #expect(try calls { try ask() } == 0)
    }

    @Test func whatWasSetIsFound() throws {
        let (test, inode) = try sample()
        #expect(throws: Errno.noData) { try test.volume.getAttribute(inode, "user.one") }
        try test.setAttribute(inode, "user.one", [1, 2])
        #expect(try test.volume.getAttribute(inode, "user.one") == [1, 2])
        try test.volume.removeAttribute(inode, "user.one")
        #expect(throws: Errno.noData) { try test.volume.getAttribute(inode, "user.one") }
    }

    @Test func directories() throws {
        let test = try TestVolume(inMemory: true, features: [])
        #expect(try calls { _ = try test.makeDirectory("directory") } == 4)
        // Looked at, opened, read to its end, pinned, moved aside; then header and directory go.
        #expect(try calls { try test.removeDirectory("directory") } == 8)
        for number in 0..<100 { try test.create("file-\(number)").close() }
        // Opened, read to its end: no entry costs a call of its own.
        #expect(try calls { _ = try test.list() } == 3)
    }
}
