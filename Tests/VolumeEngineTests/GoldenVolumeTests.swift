import CLinux
import TestSupport
import Testing
import VolumeEngine

/// Volumes of every format version open for ever, clean or as a crash left them: Tests/golden.
@Suite struct GoldenVolumeTests {
    private static let directory: String = {
        let here = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        return here.dropLast(2).joined(separator: "/") + "/golden"
    }()

    private func manifest(_ name: String) throws -> [String] {
        let text = try readText("\(Self.directory)/\(name).manifest")
        return text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map(String.init)
    }

    @Test(arguments: ["volume-1", "volume-1-crashed", "volume-1-tree-names", "volume-1-tree-names-crashed"])
    func opensForEver(name: String) throws {
        let temporary = try TemporaryDirectory()
        try runProgram(
            "/bin/tar",
            ["-xzpf", "\(Self.directory)/\(name).tar.gz", "--xattrs", "--xattrs-include=*", "-C", temporary.path])
        let test = try TestVolume(lower: temporary["lower"], in: temporary, cmk: try GoldenVolume.cmk())
        #expect(test.volume.isAfterCrash == name.hasSuffix("-crashed"))
        #expect(test.volume.description.features == (name.contains("tree-names") ? [.pageTree, .places] : []))
        let expected = try manifest("volume-1")
        #expect(expected.count > 25)
        #expect(try GoldenVolume.manifest(test) == expected)
        #expect(test.check().findings == [])
        try test.remount()
        #expect(try GoldenVolume.manifest(test) == expected)
        #expect(test.takeDamages() == [])
    }

    /// Writes new golden volumes where Tests/golden/make asks for it; what is written is what this program makes today.
    @Test func todaysVolumeIsLikeTheGoldenOne() throws {
        let test = try TestVolume(cmk: try GoldenVolume.cmk())
        let open = try GoldenVolume.fill(test)
        let target = getenv("LETHEFS_WRITE_GOLDEN_VOLUME").map { String(cString: $0) }
        if let target { try copyTree(test.lower, to: target + "/crashed/lower") }
        for file in open { file.close() }
        try test.remount()
        let manifest = try GoldenVolume.manifest(test)
        if let target {
            try test.close()
            try copyTree(test.lower, to: target + "/clean/lower")
            try writeText(manifest.joined(separator: "\n") + "\n", to: target + "/manifest")
        } else {
            #expect(try self.manifest("volume-1") == manifest)
        }
    }
}
