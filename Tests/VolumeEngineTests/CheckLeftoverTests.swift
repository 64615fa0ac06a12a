import Foundation
import Synchronization
import TestSupport
import Testing
import VolumeEngine

/// What a check counts as left over is of its own volume.
@Suite struct CheckLeftoverTests {
    /// A header, or a link, that was to take another's place when the process died: it goes, and nothing is kept for its sake.
    @Test func linksThatWereToReplaceOthers() throws {
        let test = try TestVolume(features: .pageTree)
        try test.write("a", [1])
        let stray = test.lower + "/.lethefs/trees/00000000-0000-4000-8000-000000000001"
        #expect(FileManager.default.createFile(atPath: stray, contents: Data([1])))
        try FileManager.default.createSymbolicLink(
            atPath: test.lower + "/lethefs.temp.stray", withDestinationPath: "target")
        var options = VolumeCheck.Options()
        options.repair = true
        let report = try VolumeCheck(test.volume, options: options).run()
        #expect(report.findings == [])
        #expect(Set(report.leftovers.map(\.kind)) == [.temporary, .tree])
        #expect(!report.leftovers.contains { !$0.repaired })
        #expect(try VolumeCheck(test.volume).run().leftovers == [])
    }

    /// A thread that opens files which a crash left in doubt, while another one checks, leaves nothing for a check of its own later.
    @Test(.timeLimit(.minutes(10))) func filesSettledBesideACheck() throws {
        let crashed = try TestVolume(features: [])
        let file = try crashed.create("a")
        try file.write([1])
        try file.sync()
        try crashed.crash()
        file.close()
        let clean = try TestVolume(features: [])
        try clean.write("b", [2])
        try clean.remount()

        let (begun, settled, ended) = (
            DispatchSemaphore(value: 0), DispatchSemaphore(value: 0), DispatchSemaphore(value: 0)
        )
        let isFirst = Atomic<Bool>(true)
        let beside = try VolumeCheck(clean.volume) { _ in
            guard isFirst.exchange(false, ordering: .relaxed) else { return }
            begun.signal()
            settled.wait()
        }
        Thread.detachNewThread {
            #expect(beside.run().leftovers == [])
            ended.signal()
        }
        begun.wait()
        try crashed.open("a").close()
        settled.signal()
        ended.wait()
        #expect(try VolumeCheck(clean.volume).run().leftovers == [])
    }
}
