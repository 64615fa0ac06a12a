import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// What `check --salvage` copies, and what it says of what it could not copy.
@Suite struct SalvageTests {
    private func salvage(
        _ test: TestVolume, into path: String, threads: Int = 1, _ before: () -> Void = {}
    ) throws -> VolumeCheck.Report {
        var options = VolumeCheck.Options()
        options.salvage = path
        options.threads = threads
        let check = try VolumeCheck(test.volume, options: options)
        before()
        defer { FaultInjection.disarm() }
        return check.run()
    }

    private func attributes(_ path: String) throws -> stat {
        var info = stat()
        guard lstat(path, &info) == 0 else { throw Errno.current }
        return info
    }

    /// The one lower entry that is not the volume's own.
    private func lowerEntry(_ test: TestVolume) throws -> String {
        let names = try test.lowerNames().filter { !$0.hasPrefix(".") && !$0.hasPrefix("lethefs") }
        try #require(names.count == 1)
        return test.lower + "/" + names[0]
    }

    /// A full disk: what is not there, or not whole, is told, and does not count as copied.
    @Test(arguments: [LowerCall.pwrite, .ftruncate, .setxattr, .syncfs])
    func aTargetThatCannotBeWritten(call: LowerCall) throws {
        let test = try TestVolume()
        try test.write("file", [UInt8](repeating: 1, count: 50_000))
        try test.setAttribute(test.lookUp("file").inode, "user.a", [1])
        try test.remount()
        let temporary = try TemporaryDirectory()
        let report = try salvage(test, into: temporary["out"]) {
            FaultInjection.arm(nth: 1, of: [call], fault: .errno(.noSpace), repeats: true)
        }
        #expect(report.findings.map(\.object) == ["salvage"])
        #expect(report.findings.map(\.path) == [call == .syncfs ? "/" : "/file"])
        #expect(report.salvaged == ([.pwrite, .ftruncate].contains(call) ? 0 : 1))
    }

    @Test func theTargetIsNewOrEmpty() throws {
        let test = try TestVolume()
        let temporary = try TemporaryDirectory()
        #expect(mkdir(temporary["empty"], 0o700) == 0)
        #expect(try salvage(test, into: temporary["empty"]).findings == [])
        try test.write("file", [1])
        #expect(try salvage(test, into: temporary["empty"]).findings == [])
        // A second run would write to whatever is there by now.
        #expect(throws: Errno.notEmpty) { try salvage(test, into: temporary["empty"]) }
    }

    /// Neither the kind of a lower entry nor its mode is authenticated.
    @Test func deviceNodesAreLeftOut() throws {
        let test = try TestVolume()
        for (name, mode) in [("null", mode_t(S_IFCHR)), ("pipe", mode_t(S_IFIFO))] {
            _ = try test.named(Name(stringLiteral: name)) { (name) throws(Errno) in
                try test.volume.makeNode(test.top, name, mode: mode | 0o600, device: 259, TestVolume.root)
            }
        }
        let temporary = try TemporaryDirectory()
        let report = try salvage(test, into: temporary["out"])
        #expect(report.findings.map(\.path) == ["/null"])
        #expect(report.findings.map(\.object) == ["salvage"])
        #expect(report.salvaged == 1)
        #expect(throws: Errno.noEntry) { try attributes(temporary["out/null"]) }
        #expect(try attributes(temporary["out/pipe"]).st_mode == mode_t(S_IFIFO) | 0o600)
    }

    /// Owner, mode and times are those of the volume, and no set-ID bit is.
    @Test(arguments: [true, false]) func linksAndPipes(isLink: Bool) throws {
        let test = try TestVolume()
        if isLink {
            _ = try test.makeLink("entry", to: Array("target".utf8))
        } else {
            _ = try test.named("entry") { (name) throws(Errno) in
                try test.volume.makeNode(test.top, name, mode: mode_t(S_IFIFO) | 0o622, device: 0, TestVolume.root)
            }
        }
        let lower = try lowerEntry(test)
        #expect(lchown(lower, 12, 34) == 0)
        if !isLink { #expect(chmod(lower, 0o6722) == 0) }
        let time = timespec(tv_sec: 1_000_000, tv_nsec: 5)
        #expect(utimensat(AT_FDCWD, lower, [time, time], Int32(AT_SYMLINK_NOFOLLOW)) == 0)
        let temporary = try TemporaryDirectory()
        #expect(try salvage(test, into: temporary["out"]).findings == [])
        let info = try attributes(temporary["out/entry"])
        #expect(info.st_uid == 12 && info.st_gid == 34)
        #expect(info.st_mtim.tv_sec == 1_000_000 && info.st_mtim.tv_nsec == 5)
        if !isLink { #expect(info.st_mode == mode_t(S_IFIFO) | 0o722) }
    }

    /// Threads that meet two names of a file at the same time.
    @Test(.timeLimit(.minutes(10))) func namesOfAFileStayTogether() throws {
        let test = try TestVolume()
        for number in 0..<300 {
            try test.write(Name("a\(number)"), [1, 2, 3])
            _ = try test.link(test.lookUp(Name("a\(number)")).inode, as: Name("b\(number)"))
        }
        for _ in 0..<5 {
            let temporary = try TemporaryDirectory()
            let report = try salvage(test, into: temporary["out"], threads: 16)
            #expect(report.findings == [])
            for number in 0..<300 {
                let one = try attributes(temporary["out/a\(number)"]).st_ino
                #expect(try attributes(temporary["out/b\(number)"]).st_ino == one, "file \(number)")
            }
        }
    }

    /// What opens is copied, and each of the others is told.
    @Test(arguments: [false, true]) func attributesBesideADamagedOne(ofDirectory: Bool) throws {
        let test = try TestVolume()
        let inode: Inode
        if ofDirectory {
            inode = try test.makeDirectory("entry")
        } else {
            try test.write("entry", [1])
            inode = try test.lookUp("entry").inode
        }
        for name in ["user.a", "user.b", "user.c", "user.d"] { try test.setAttribute(inode, name, Array(name.utf8)) }
        let path = try lowerEntry(test)
        let sealed = try Lower.listAttributes(path: path).map { String(decoding: $0, as: UTF8.self) }
            .filter { $0.hasPrefix("user.lethefs.") && $0 != PlaceList.attribute }
        try #require(sealed.count == 4)
        for name in sealed.prefix(2) {
            var value = try Lower.getAttribute(path: path, name)
            value[value.count - 1] ^= 1
            try value.withUnsafeBytes { try Lower.setAttribute(path: path, name, $0, flags: 0) }
        }
        // One that was put under another one's name.
        let moved = try Lower.getAttribute(path: path, sealed[2])
        try moved.withUnsafeBytes { try Lower.setAttribute(path: path, "user.lethefs.AAAA", $0, flags: 0) }
        if ofDirectory { #expect(symlink("name", path + "/lethefs.name.AAAA") == 0) }
        try test.remount()
        let temporary = try TemporaryDirectory()
        var options = VolumeCheck.Options()
        options.salvage = temporary["out"]
        options.repair = true
        let report = try VolumeCheck(test.volume, options: options).run()
        #expect(report.findings.map(\.object) == ["extended attribute", "extended attribute", "extended attribute"])
        #expect(report.leftovers.map(\.kind) == (ofDirectory ? [.sidecar] : []))
        let copied = try Lower.listAttributes(path: temporary["out/entry"]).map { String(decoding: $0, as: UTF8.self) }
        #expect(copied.count == 2)
        for name in copied { #expect(try Lower.getAttribute(path: temporary["out/entry"], name) == Array(name.utf8)) }
    }

    /// Holes of any size take no time and no space.
    @Test(.timeLimit(.minutes(2)), arguments: [FeatureFlags(), .pageTree])
    func aSparseFile(features: FeatureFlags) throws {
        let test = try TestVolume(features: features)
        let size = 1 << 42
        let (middle, piece) = (size / 2 + 5, [UInt8](repeating: 7, count: 10_000))
        let file = try test.create("file")
        try file.write(piece)
        try file.truncate(to: size)
        try file.write(piece, at: middle)
        file.close()
        try test.remount()
        let temporary = try TemporaryDirectory()
        let report = try salvage(test, into: temporary["out"], threads: 2)
        #expect(report.findings == [])
        #expect(report.bytes < 1 << 20)
        let info = try attributes(temporary["out/file"])
        #expect(info.st_size == size && info.st_blocks < 1000)
        let copy = try Lower.open(path: temporary["out/file"], flags: O_RDONLY)
        for at in [0, middle] {
            var bytes = [UInt8](repeating: 0, count: piece.count)
            let count = try bytes.withUnsafeMutableBytes { buffer in
                try Lower.read(copy, into: try #require(buffer.baseAddress), count: buffer.count, at: UInt64(at))
            }
            #expect(count == piece.count && bytes == piece)
        }
    }
}
