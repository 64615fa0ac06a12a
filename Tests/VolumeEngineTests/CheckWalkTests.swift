import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// What a check cannot read hides nothing else, and nothing goes because of it.
@Suite struct CheckWalkTests {
    private func repair(_ test: TestVolume) throws -> VolumeCheck.Report {
        var options = VolumeCheck.Options()
        options.repair = true
        return try VolumeCheck(test.volume, options: options).run()
    }

    private func lowerEntries(_ test: TestVolume) throws -> [String] {
        try test.lowerNames().filter { !$0.hasPrefix(".") && !$0.hasPrefix("lethefs") }
    }

    /// Each entry's look fails once: the others are looked at all the same.
    @Test(arguments: [1, 2, 3], [Errno.io, Errno(EUCLEAN)]) func anEntryThatCannotBeLookedAt(nth: Int, error: Errno)
        throws
    {
        let test = try TestVolume(features: [])
        for name: Name in ["a", "b", "c"] { try test.write(name, [1]) }
        try test.remount()
        let check = try VolumeCheck(test.volume)
        FaultInjection.arm(nth: nth, of: [.fstat], fault: .errno(error))
        defer { FaultInjection.disarm() }
        let report = check.run()
        #expect(report.files == 2)
        #expect(report.findings.map(\.object) == ["lower storage"])
        #expect(["/a", "/b", "/c"].contains(report.findings.first?.path))
    }

    /// Page trees of files that are there stay, whatever kept the walk from meeting them.
    @Test(arguments: [Errno.noEntry, .stale], [LowerCall.openat, .fstat])
    func aFileThatIsNotMet(error: Errno, call: LowerCall) throws {
        let test = try TestVolume(features: .pageTree)
        try test.write("file", [UInt8](repeating: 1, count: 50_000))
        try test.remount()
        let trees = try test.lowerNames(".lethefs/trees")
        try #require(trees.count == 1)
        for nth in 1...25 {
            FaultInjection.arm(nth: nth, of: [call], fault: .errno(error))
            let report = try repair(test)
            FaultInjection.disarm()
            #expect(report.files == 1 || !report.findings.isEmpty, "call \(nth)")
            #expect(try test.lowerNames(".lethefs/trees") == trees, "call \(nth)")
        }
    }

    /// A repair of the lower storage put it into `lost+found`; or it is in a directory half removed, which stays.
    @Test(arguments: ["lost+found", "lethefs.temp.1"], [false, true])
    func aFileThatLiesElsewhere(directory: String, repairs: Bool) throws {
        let test = try TestVolume(features: .pageTree)
        try test.write("file", [UInt8](repeating: 1, count: 50_000))
        try test.close()
        let name = try #require(try lowerEntries(test).first)
        #expect(mkdir(test.lower + "/" + directory, 0o700) == 0)
        let (before, after) = (test.lower + "/" + name, test.lower + "/" + directory + "/#123")
        #expect(rename(before, after) == 0)
        try test.open()
        let trees = try test.lowerNames(".lethefs/trees")
        let report = try repairs ? repair(test) : test.check()
        let heldTrees = report.leftovers.filter { $0.kind == .heldTree }
        #expect(heldTrees.map(\.repaired) == (repairs ? [false] : []))
        #expect(report.holdsOthers == repairs)
        #expect(!report.leftovers.contains { $0.kind == .tree })
        #expect(try test.lowerNames(".lethefs/trees") == trees)
        #expect(rename(after, before) == 0)
        #expect(try test.read("file") == [UInt8](repeating: 1, count: 50_000))
        // Where nothing lies elsewhere, what is left over goes.
        #expect(unlink(before) == 0)
        try test.remount()
        #expect(try repair(test).leftovers.contains { $0.kind == .tree && $0.repaired })
        #expect(try test.lowerNames(".lethefs/trees") == [])
    }

    /// It is left as it is, for another try.
    @Test func aDamagedFileIsNotSettled() throws {
        let test = try TestVolume(features: [])
        try test.write("file", [UInt8](repeating: 1, count: 20_000))
        let file = try test.open("file")
        try file.write([2])
        try file.sync()
        try test.crash()
        file.close()
        let lower = try Lower.open(
            path: test.lower + "/" + (try #require(try lowerEntries(test).first)), flags: O_RDWR)
        func flip() throws {
            var byte: UInt8 = 0
            _ = try Lower.read(lower, into: &byte, count: 1, at: 9000)
            byte ^= 1
            try Lower.write(lower, from: &byte, count: 1, at: 9000)
        }
        try flip()
        for _ in 0..<2 {
            let report = try repair(test)
            #expect(report.findings.map(\.page) == [2])
            #expect(report.leftovers.map(\.repaired) == [false])
        }
        try flip()
        #expect(try repair(test).leftovers.map(\.repaired) == [true])
        #expect(try repair(test).leftovers == [])
    }

    /// A mount that serves nothing has not happened: what it would have left in doubt is not.
    @Test func aRootThatCannotBeRead() throws {
        let test = try TestVolume(features: [])
        let epoch = test.volume.epoch
        try test.close()
        let (header, away) = (test.lower + "/lethefs.dir", test.lower + "/lethefs.away")
        #expect(rename(header, away) == 0)
        #expect(throws: (any Error).self) { try test.open() }
        #expect(rename(away, header) == 0)
        try test.open()
        #expect(test.volume.epoch == epoch + 1)
    }
}
