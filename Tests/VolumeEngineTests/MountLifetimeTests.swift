import TestSupport
import Testing
import VolumeEngine

@Suite struct MountLifetimeTests {
    /// A mount that is gone keeps no descriptor of the lower tree: what it lay on can be unmounted.
    @Test func letsGoOfTheLowerTree() throws {
        let first = try TestVolume()
        let inside = try first.makeDirectory("dir")
        try first.write("file", [1, 2, 3], in: inside)
        first.volume.forget(inside, count: 1)
        try first.close()
        let (lower, cmk, temporary) = (first.lower, first.cmk, first.temporary)
        first.drop()
        #expect(try TestVolume.openDescriptors(in: lower) == 0)
        let second = try TestVolume(lower: lower, in: temporary, cmk: cmk)
        #expect(try second.list() == ["dir"])
    }
}
