import CLinux
import ControlPlane
import Foundation
import TestSupport
import Testing

/// What a revocation says of its proof.
@Suite struct CanaryTests {
    @Test func nothingIsNotTheSameAsTooLate() throws {
        #expect(Canary.open { Canary(descriptor: -1, isDirectory: false) }.check() == "nothing to read")
        let late = Canary.open(seconds: 0.05) {
            usleep(2_000_000)
            return Canary(descriptor: -1, isDirectory: false)
        }
        #expect(late.check() == "not found in time")
        #expect(Canary.Opening.unsought.check() == "not looked for")
    }

    @Test func whatStillReads() throws {
        let temporary = try TemporaryDirectory()
        for (text, word) in [("a", "READ"), ("", "nothing to read")] {
            let path = temporary["file"]
            try writeText(text, to: path)
            let opening = Canary.open {
                Canary(descriptor: linux_open(path, O_RDONLY | O_CLOEXEC, 0), isDirectory: false)
            }
            #expect(opening.check() == word)
        }
        let path = temporary.path
        let directory = Canary.open { Canary(descriptor: linux_open(path, O_RDONLY | O_CLOEXEC, 0), isDirectory: true) }
        #expect(directory.check() == "READ")
        // A read of a directory gives EISDIR, as an example of an error.
        #expect(
            Canary.open { Canary(descriptor: linux_open(path, O_RDONLY | O_CLOEXEC, 0), isDirectory: false) }.check()
                == "refused")
    }
}
