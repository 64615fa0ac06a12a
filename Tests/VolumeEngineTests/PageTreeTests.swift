import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// What a page tree notices (FORMAT §12): pages put back, made holes, or filled in; and what it has to accept after a crash.
@Suite struct PageTreeTests {
    private static let page = 4096
    private static let payload = 4064

    private func volume() throws -> TestVolume { try TestVolume(features: .pageTree) }

    /// The lower file of `name`: the only regular one outside `.lethefs`.
    private func lowerFile(_ test: TestVolume) throws -> String {
        let names = try test.lowerNames().filter { !$0.hasPrefix(".") && !$0.hasPrefix("lethefs") }
        return test.lower + "/" + (try #require(names.count == 1 ? names[0] : nil))
    }

    private func nodes(_ test: TestVolume) throws -> [String] { try test.lowerNames(".lethefs/trees") }

    private func bytes(_ path: String, _ offset: Int, _ count: Int) throws -> [UInt8] {
        let file = try Lower.open(path: path, flags: O_RDONLY)
        var bytes = [UInt8](repeating: 0, count: count)
        _ = try bytes.withUnsafeMutableBytes { buffer in
            try Lower.read(file, into: try #require(buffer.baseAddress), count: count, at: UInt64(offset))
        }
        return bytes
    }

    private func put(_ bytes: [UInt8], _ path: String, _ offset: Int) throws {
        let file = try Lower.open(path: path, flags: O_WRONLY)
        try bytes.withUnsafeBytes { buffer in
            try Lower.write(file, from: try #require(buffer.baseAddress), count: bytes.count, at: UInt64(offset))
        }
    }

    private static func content(_ pages: Int, _ seed: UInt8) -> [UInt8] {
        (0..<3552 + (pages - 1) * payload - 100).map { UInt8(truncatingIfNeeded: $0 / 7) &+ seed }
    }

    @Test(.timeLimit(.minutes(10)), arguments: [1, 2, 3, 169, 170, 400])
    func anOlderPageIsRefused(pages: Int) throws {
        let test = try volume()
        let old = Self.content(pages, 1)
        try test.write("file", old)
        try test.remount()
        let lower = try lowerFile(test)
        #expect(try nodes(test).count == (pages > 2 ? 1 : 0))
        let file = try test.open("file")
        // Only a part of each page is new, so that the old ones are as good as the new ones.
        let victim = (pages - 1) / 2
        let start = victim == 0 ? 0 : 3552 + (victim - 1) * Self.payload
        let kept = try bytes(lower, victim == 0 ? 512 : victim * Self.page, victim == 0 ? Self.page - 512 : Self.page)
        try file.write([7, 7, 7], at: start + 10)
        let newer = try bytes(lower, victim * Self.page, Self.page)
        // While it is mounted, before anything of the tree is stored.
        try put(kept, lower, victim == 0 ? 512 : victim * Self.page)
        #expect(throws: Errno.io) { try file.read(at: start + 20, count: 10) }
        #expect(test.takeDamages().map(\.reason) == ["not the version that the page tree lists"])
        try put(victim == 0 ? Array(newer[512...]) : newer, lower, victim == 0 ? 512 : victim * Self.page)
        var expected = old
        expected.replaceSubrange(start + 10..<start + 13, with: [7, 7, 7])
        #expect(try file.readAll() == expected)
        file.close()
        try test.remount()
        #expect(try test.read("file") == expected)
        try put(kept, lower, victim == 0 ? 512 : victim * Self.page)
        #expect(throws: Errno.io) { try test.read("file") }
        #expect(test.check().findings.map(\.path) == ["/file"])
    }

    @Test(.timeLimit(.minutes(10)))
    func aSparseFilesPagesStayWhatTheyAre() throws {
        let test = try volume()
        let file = try test.create("file")
        try file.write([UInt8](repeating: 1, count: 3 * Self.page))
        try file.write([2], at: 300 * Self.page)
        try file.write([UInt8](repeating: 3, count: 3 * Self.page), at: 600 * Self.page)
        file.close()
        try test.remount()
        let lower = try lowerFile(test)
        let kept = try bytes(lower, Self.page, Self.page)
        // A page made a hole.
        try put([UInt8](repeating: 0, count: Self.page), lower, Self.page)
        #expect(throws: Errno.io) { try test.read("file") }
        try put(kept, lower, Self.page)
        var model = [UInt8](repeating: 0, count: 600 * Self.page + 3 * Self.page)
        for index in 0..<3 * Self.page { model[index] = 1 }
        model[300 * Self.page] = 2
        for index in 600 * Self.page..<603 * Self.page { model[index] = 3 }
        #expect(try test.read("file") == model)
        // A hole filled with a page that stood there once.
        let again = try test.open("file")
        try again.allocate([.punchHole, .keepSize], at: 3552, count: Self.payload)
        again.close()
        try test.remount()
        for index in 3552..<3552 + Self.payload { model[index] = 0 }
        #expect(try test.read("file") == model)
        try put(kept, lower, Self.page)
        #expect(throws: Errno.io) { try test.read("file") }
    }

    /// Nodes are as much under attack as pages.
    @Test(.timeLimit(.minutes(10)), arguments: [0, 12, 20, 100, 4000])
    func editedNodesAreDamage(offset: Int) throws {
        let test = try volume()
        try test.write("file", Self.content(400, 1))
        try test.remount()
        let name = try #require(try nodes(test).first)
        let path = test.lower + "/.lethefs/trees/" + name
        let size = Int(try Lower.stat(Lower.open(path: path, flags: O_RDONLY)).st_size)
        for node in stride(from: 0, to: size, by: Self.page) {
            var byte = try bytes(path, node + offset, 1)
            byte[0] ^= 0x10
            try put(byte, path, node + offset)
        }
        #expect(throws: Errno.io) { try test.read("file") }
        #expect(test.takeDamages().contains { $0.object == .pageTree })
        try Lower.unlink(Lower.open(path: test.lower + "/.lethefs/trees", flags: O_RDONLY), name)
        try test.remount()
        #expect(throws: Errno.io) { try test.read("file") }
        #expect(test.check().findings.first?.object == "page tree")
    }

    /// What was stored before the last time that trees were stored does not come back through a crash.
    @Test(.timeLimit(.minutes(10)))
    func aCrashExplainsOnlyWhatCameSince() throws {
        let test = try volume()
        let old = Self.content(200, 1)
        try test.write("file", old)
        try test.volume.storeTrees()
        let first = try bytes(try lowerFile(test), 5 * Self.page, Self.page)
        let file = try test.open("file")
        try file.write([9], at: 3552 + 4 * Self.payload)
        try test.volume.storeTrees()
        try file.write([8], at: 3552 + 4 * Self.payload)
        try test.crash()
        var expected = old
        expected[3552 + 4 * Self.payload] = 8
        #expect(try test.read("file") == expected)
        try put(first, try lowerFile(test), 5 * Self.page)
        #expect(throws: Errno.io) { try test.read("file") }
        _ = file
    }

    /// After a crash, and whatever was done to the file then, each version that is there is accepted, and from the next time on no other.
    @Test(.timeLimit(.minutes(10)), arguments: [1, 2, 5, 300], [false, true])
    func crashesAreSettled(pages: Int, isOpenedAtOnce: Bool) throws {
        let test = try volume()
        var model = Self.content(pages, 3)
        var stale: [(Int, [UInt8])] = []
        for round in 0..<4 {
            let file = round == 0 ? try test.create("file") : try test.open("file")
            if round == 0 { try file.write(model) }
            for index in stride(from: round, to: model.count, by: 3000) {
                try file.write([UInt8(round + 40)], at: index)
                model[index] = UInt8(round + 40)
            }
            if round == 2 { try test.volume.storeTrees() }
            try test.crash()
            if isOpenedAtOnce { #expect(try test.read("file") == model) }
            let lower = try lowerFile(test)
            stale.append(
                pages > 1 ? (Self.page, try bytes(lower, Self.page, Self.page)) : (512, try bytes(lower, 512, 3584)))
            let again = try test.open("file")
            try again.write([UInt8(round)], at: 3552 / 2)
            model[3552 / 2] = UInt8(round)
            if pages > 1 {
                try again.write([UInt8(round)], at: 3560)
                model[3560] = UInt8(round)
            }
            again.close()
            #expect(try test.read("file") == model)
            try test.remount()
            #expect(try test.read("file") == model)
            #expect(test.check().findings.isEmpty)
            for (offset, bytes) in stale {
                let now = try self.bytes(lower, offset, bytes.count)
                try put(bytes, lower, offset)
                #expect(throws: Errno.io) { try test.read("file") }
                try put(now, lower, offset)
            }
            #expect(try test.read("file") == model)
            _ = file
        }
    }

    /// Cut short and grown again, nothing of what was there is asked for, or comes back.
    @Test(.timeLimit(.minutes(10)), arguments: [0, 1, 3000, 3552, 169 * 4064 - 512, 170 * 4064, 250 * 4064])
    func cutAndGrown(size: Int) throws {
        let test = try volume()
        let old = Self.content(400, 5)
        try test.write("file", old)
        try test.remount()
        let lower = try lowerFile(test)
        let kept = try bytes(lower, 390 * Self.page, Self.page)
        let file = try test.open("file")
        try file.truncate(to: size)
        try file.truncate(to: old.count)
        try file.write([1, 2, 3], at: old.count - 3)
        let model = Array(old[..<size]) + [UInt8](repeating: 0, count: old.count - size - 3) + [1, 2, 3]
        #expect(try file.readAll() == model)
        file.close()
        try test.volume.storeTrees()
        #expect(try test.read("file") == model)
        try test.remount()
        #expect(try test.read("file") == model)
        #expect(test.check().findings.isEmpty)
        try put(kept, lower, 390 * Self.page)
        #expect(throws: Errno.io) { try test.read("file") }
    }

    @Test(.timeLimit(.minutes(10)))
    func aFileThatGoesTakesItsTree() throws {
        let test = try volume()
        try test.write("large", Self.content(10, 1))
        try test.write("other", Self.content(10, 1))
        try test.write("small", [1])
        try test.volume.storeTrees()
        #expect(try nodes(test).count == 2)
        // One that is open goes on.
        let file = try test.open("large")
        try test.unlink("large")
        #expect(try nodes(test).count == 1)
        #expect(try file.readAll() == Self.content(10, 1))
        try file.write([1], at: 5000)
        try test.volume.storeTrees()
        #expect(try nodes(test).count == 1)
        file.close()
        try test.rename("small", to: "other")
        #expect(try nodes(test) == [])
        try test.write("again", Self.content(10, 1))
        let again = try test.open("again")
        try test.volume.storeTrees()
        try again.truncate(to: 100)
        try test.volume.storeTrees()
        #expect(try nodes(test) == [])
        again.close()
        try test.remount()
        #expect(try test.read("again") == Array(Self.content(10, 1)[..<100]))
        #expect(test.check().findings.isEmpty)
    }

    /// Far out in a file that is mostly holes: trees of several levels.
    @Test(.timeLimit(.minutes(10)))
    func farOut() throws {
        let test = try volume()
        let places = [0, 100_000, 169 * 4096 * 3, 169 * 169 * 4096, 169 * 169 * 169 * 4096, 1 << 40]
        let file = try test.create("file")
        for (index, place) in places.enumerated() {
            try file.write([UInt8(index + 1)], at: place)
            if index % 2 == 0 { try test.volume.storeTrees() }
        }
        file.close()
        try test.remount()
        let again = try test.open("file")
        for (index, place) in places.enumerated() {
            #expect(try again.read(at: place, count: 2).first == UInt8(index + 1))
        }
        try again.allocate([.punchHole, .keepSize], at: 50_000, count: (1 << 40) - 100_000)
        try test.volume.storeTrees()
        #expect(try again.read(at: 169 * 169 * 4096, count: 1) == [0])
        #expect(try again.read(at: 1 << 40, count: 1) == [6])
        try again.truncate(to: 200_000)
        again.close()
        try test.remount()
        #expect(try test.read("file").count == 200_000)
        #expect(try test.read("file")[0] == 1)
    }

    /// The nodes are under the new DEK as the pages are, and the old one can go.
    @Test(.timeLimit(.minutes(10)), arguments: [1, 2, 500])
    func reencrypted(pages: Int) throws {
        let test = try volume()
        let model = Self.content(pages, 1)
        try test.write("file", model)
        try test.remount()
        let work = try test.mount.beginReencryption(
            .root, scope: nil, rate: 0, flags: [], editing: RewrapTests.editing(test))
        #expect(
            try test.mount.reencrypt(.root, work, editing: RewrapTests.editing(test), control: SweepControl()) == 1)
        #expect(try test.read("file") == model)
        try test.remount()
        #expect(try test.read("file") == model)
        #expect(test.check().findings.isEmpty)
        // A version under the new DEK, from before another write.
        let lower = try lowerFile(test)
        let kept = try bytes(lower, 512, Self.page - 512)
        let file = try test.open("file")
        try file.write([1, 2, 3])
        file.close()
        try test.remount()
        #expect(try test.read("file").count == model.count)
        try put(kept, lower, 512)
        #expect(throws: Errno.io) { try test.read("file") }
    }

    /// The first change after a crash makes the file longer: what it writes lies behind the end that the crash left in doubt.
    @Test(.timeLimit(.minutes(10)), arguments: [10 * 4064, 10 * 4064 - 500], [10 * 4064, 169 * 4064 + 9, 400 * 4064])
    func growsAfterACrash(size: Int, place: Int) throws {
        let test = try volume()
        var model = [UInt8](repeating: 5, count: size)
        let file = try test.create("file")
        try file.write(model)
        try test.volume.storeTrees()
        try file.write([6], at: 100)
        model[100] = 6
        try test.crash()
        let again = try test.open("file")
        let added = [UInt8](repeating: 7, count: 300_000)
        try again.write(added, at: place)
        if model.count < place { model += [UInt8](repeating: 0, count: place - model.count) }
        model = Array(model[..<place]) + added + model.dropFirst(place + added.count)
        again.close()
        try test.volume.storeTrees()
        #expect(try test.read("file") == model)
        try test.remount()
        #expect(try test.read("file") == model)
        #expect(test.check().findings.isEmpty)
        _ = file
    }

    /// More nodes than are kept, all of them changed, and requests that need several that are not there.
    @Test(.timeLimit(.minutes(10)))
    func manyNodes() throws {
        let test = try volume()
        let file = try test.create("file")
        let node = 169 * 4064
        for index in 0..<1200 { try file.write([UInt8(truncatingIfNeeded: index)], at: index * node + 5000) }
        let large = [UInt8](repeating: 9, count: 1 << 20)
        for index in 0..<40 { try file.write(large, at: (1200 + 3 * index) * node + 1000) }
        #expect(try file.read(at: 600 * node, count: 1 << 20).count == 1 << 20)
        file.close()
        try test.remount()
        let again = try test.open("file")
        for index in 0..<1200 {
            #expect(try again.read(at: index * node + 5000, count: 1) == [UInt8(truncatingIfNeeded: index)])
        }
        for index in 0..<40 { #expect(try again.read(at: (1200 + 3 * index) * node + 1000, count: 1 << 20) == large) }
        again.close()
        #expect(test.check().findings.isEmpty)
    }

    /// Cut at the end of a page and grown again, while nothing of its tree can be stored.
    @Test(.timeLimit(.minutes(10)))
    func aTreeThatIsNotStoredSaysSo() throws {
        let test = try volume()
        let old = Self.content(400, 5)
        try test.write("file", old)
        try test.remount()
        let size = 3552 + 249 * Self.payload
        let file = try test.open("file")
        try file.truncate(to: size)
        try file.truncate(to: old.count)
        file.close()
        // The zone is closed when the mount ends.
        test.volume.allZones[0].close(.keyRevoked)
        #expect(throws: Errno.keyRevoked) { try test.volume.storeTrees() }
        try test.remount()
        #expect(try test.read("file") == Array(old[..<size]) + [UInt8](repeating: 0, count: old.count - size))
        #expect(test.check().findings.isEmpty)
    }

    /// The same, and it grows only in a later mount.
    @Test(.timeLimit(.minutes(10)))
    func aCutThatWasNotStored() throws {
        let test = try volume()
        let old = Self.content(400, 5)
        try test.write("file", old)
        try test.remount()
        let kept = try bytes(try lowerFile(test), 300 * Self.page, Self.page)
        let size = 3552 + 249 * Self.payload
        let file = try test.open("file")
        try file.truncate(to: size)
        file.close()
        test.volume.allZones[0].close(.keyRevoked)
        try test.remount()
        let again = try test.open("file")
        try again.write([1])
        try test.volume.storeTrees()
        try again.truncate(to: old.count)
        let model = [1] + Array(old[1..<size]) + [UInt8](repeating: 0, count: old.count - size)
        #expect(try again.readAll() == model)
        again.close()
        try test.remount()
        #expect(try test.read("file") == model)
        try put(kept, try lowerFile(test), 300 * Self.page)
        #expect(throws: Errno.io) { try test.read("file") }
    }

    /// A file that goes while it is open, and of which nothing was read: its nodes are still the ones that count.
    @Test(.timeLimit(.minutes(10)))
    func writtenToWithoutAName() throws {
        let test = try volume()
        let old = Self.content(100, 1)
        try test.write("file", old)
        try test.remount()
        let file = try test.open("file")
        try test.unlink("file")
        try file.write([1, 2, 3], at: 8_000_000)
        try test.volume.storeTrees()
        #expect(try file.read(at: 20_000, count: 100) == Array(old[20_000..<20_100]))
        #expect(try file.read(at: 8_000_000, count: 3) == [1, 2, 3])
        file.close()
        #expect(!test.volume.hasUnstoredTrees)
        #expect(try nodes(test) == [])
    }

    /// A large range of a large file, in pieces.
    @Test(.timeLimit(.minutes(10)))
    func punchedInPieces() throws {
        let test = try volume()
        let file = try test.create("file")
        let node = 169 * 4064
        for index in 0..<700 { try file.write([UInt8(truncatingIfNeeded: index), 1], at: index * node + 9000) }
        try test.volume.storeTrees()
        try file.allocate([.punchHole, .keepSize], at: 10 * node, count: 680 * node)
        file.close()
        try test.remount()
        let again = try test.open("file")
        for index in 0..<700 {
            let expected = (10..<690).contains(index) ? [0, 0] : [UInt8(truncatingIfNeeded: index), 1]
            #expect(try again.read(at: index * node + 9000, count: 2) == expected)
        }
        again.close()
        #expect(test.check().findings.isEmpty)
    }

    /// A name that goes while a program is about to open the file, or has it open.
    @Test(.timeLimit(.minutes(10)))
    func filesWithoutANameGoOn() throws {
        let test = try volume()
        let old = Self.content(300, 1)
        try test.write("file", old)
        try test.write("new", [1])
        try test.remount()
        let known = try test.lookUp("file").inode
        try test.rename("new", to: "file")
        #expect(try nodes(test) == [])
        let content = try test.volume.openContent(known, forWriting: true)
        let late = TestFile(known, content, test.volume)
        #expect(try late.readAll() == old)
        for round in 0..<3 {
            try late.write([UInt8](repeating: UInt8(round), count: 900_000), at: 700_000 * round)
            try test.volume.storeTrees()
        }
        #expect(try late.read(at: 1_500_000, count: 1) == [2])
        #expect(try nodes(test) == [])
        late.close()
        try test.volume.storeTrees()
        // Made shorter, and gone before its tree was stored.
        try test.write("large", old)
        try test.volume.storeTrees()
        let file = try test.open("large")
        try file.truncate(to: 0)
        try test.unlink("large")
        file.close()
        #expect(try nodes(test) == [])
        try test.remount()
        #expect(test.check().leftovers.isEmpty)
    }
}
