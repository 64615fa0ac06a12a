import KeyManagement
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// Lower inode numbers are given again. What a sweep has seen, or replaced, must not be taken for what has its number now.
@Suite struct NumberReuseTests {
    /// ext4 gives the lowest free number of a group, so what was freed comes again soon.
    private static let attempts = 2000

    /// A re-encryption seals a link anew: another lower link takes its place, while the kernel still knows the old one.
    @Test func aFileGetsTheNumberOfALinkThatASweepReplaced() throws {
        let test = try TestVolume()
        test.volume.forget(try test.makeLink("link", to: Array("target".utf8)), count: 1)
        let known = try test.lookUp("link").inode
        let number = known.number
        let editing = RewrapTests.editing(test)
        _ = try test.mount.rotateKEK(.root, editing: editing)
        try test.mount.rewrap(.root, control: SweepControl())
        let work = try test.mount.beginReencryption(.root, scope: nil, rate: 0, flags: [], editing: editing)
        _ = try test.mount.reencrypt(.root, work, editing: editing, control: SweepControl())
        #expect(try test.lookUp("link").inode.number != number)
        var wasReused = false
        for attempt in 0..<Self.attempts where !wasReused {
            let file = try test.create(Name(Array("file\(attempt)".utf8)))
            wasReused = file.content.inode.number == number
            #expect(file.content.inode !== known)
            try file.write([1, 2, 3])
            file.close()
            if wasReused {
                let found = try test.lookUp(Name(Array("file\(attempt)".utf8))).inode
                #expect(found.kind == .regular)
                #expect(try test.read(Name(Array("file\(attempt)".utf8))) == [1, 2, 3])
            }
        }
        #expect(wasReused, "the lower file system did not give the number again: this needs ext4")
        test.volume.forget(known, count: 1)
    }
}
