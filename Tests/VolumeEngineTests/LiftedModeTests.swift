import CLinux
import Foundation
import Testing
import VolumeEngine
import VolumeFormat

/// A plain user's files whose mode keeps even their owner out. Not as root, whom no mode keeps out.
@Suite(.enabled(if: geteuid() != 0)) struct LiftedModeTests {
    /// Programs and sweeps that open one at the same time leave it the mode that it had.
    @Test(.timeLimit(.minutes(10)), arguments: [TestVolume.features, .places]) func openedByMany(
        features: FeatureFlags
    ) throws {
        let test = try TestVolume(inMemory: true, features: features)
        try test.write("file", [1, 2, 3])
        let inode = try test.lookUp("file").inode
        var changes = AttributeChanges()
        changes.mode = 0
        _ = try test.volume.setAttributes(inode, changes)
        let (mount, done) = (test.mount, DispatchSemaphore(value: 0))
        Thread.detachNewThread {
            for _ in 0..<300 {
                do { try mount.rewrap(.root, control: SweepControl()) } catch { Issue.record(error) }
            }
            done.signal()
        }
        for _ in 0..<3000 { #expect(try test.read("file") == [1, 2, 3]) }
        done.wait()
        #expect(try test.volume.attributes(inode).st_mode & 0o7777 == 0)
        #expect(test.takeDamages().isEmpty)
    }
}
