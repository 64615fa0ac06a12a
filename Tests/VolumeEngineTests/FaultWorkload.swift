import CLinux
import Storage
import TestSupport
import VolumeEngine
import VolumeFormat

/// Operations of every kind, and what must be there afterwards whichever of them failed.
struct FaultWorkload {
    /// What a file may hold: certain bytes, and a range that a failed operation leaves open.
    struct Expected {
        var bytes: [UInt8]
        /// Sizes that are right; the range of bytes that may be anything.
        var sizes: Set<Int>
        var open: Range<Int> = 0..<0

        init(_ bytes: [UInt8]) {
            self.bytes = bytes
            sizes = [bytes.count]
        }
    }

    let test: TestVolume
    /// By path of one or two names; a file that nobody is certain of is not in here.
    private var files: [String: Expected] = [:]
    private var directories: Set<String> = []
    private var links: [String: [UInt8]] = [:]
    private var attributes: [String: [String: [UInt8]]] = [:]
    /// Paths that may or may not be there.
    private var doubtful: Set<String> = []
    private(set) var failures = 0

    init(_ test: TestVolume) throws { self.test = test }

    /// The same expectations on a copy of the tree.
    func again(on test: TestVolume) -> FaultWorkload {
        var copy = self
        copy = copy.moved(to: test)
        return copy
    }

    private func moved(to test: TestVolume) -> FaultWorkload {
        guard var other = try? FaultWorkload(test) else { return self }
        other.files = files
        other.directories = directories
        other.links = links
        other.attributes = attributes
        return other
    }

    /// What is there, closed and clean, before anything fails.
    mutating func prepare() throws {
        for (index, size) in [0, 1, 100, 3552, 3553, 9000, 20_000].enumerated() {
            let bytes = [UInt8](repeating: UInt8(index + 1), count: size)
            try test.write("old\(index)", bytes)
            files["old\(index)"] = Expected(bytes)
        }
        _ = try test.makeDirectory("dir")
        directories.insert("dir")
        _ = try test.makeLink("link", to: Array("target".utf8))
        links["link"] = Array("target".utf8)
        let long = [UInt8](repeating: 0x74, count: 4000)
        _ = try test.makeLink("longlink", to: long)
        links["longlink"] = long
        try prepareNames()
    }

    mutating func expect(_ name: String, _ bytes: [UInt8]) { files[name] = Expected(bytes) }
    mutating func expectSame(_ name: String, as other: String) { files[name] = files[other] }
    mutating func expectExchanged(_ one: String, _ other: String) {
        (files[one], files[other]) = (files[other], files[one])
    }
    mutating func expectDirectory(_ name: String) { directories.insert(name) }
    mutating func expectAttribute(_ name: String, _ key: String, _ value: [UInt8]) {
        attributes[name, default: [:]][key] = value
    }

    mutating func expectGone(_ name: String) {
        files[name] = nil
        directories.remove(name)
    }

    mutating func doubtDirectory(_ name: String) {
        directories.remove(name)
        doubtful.insert(name)
    }

    /// Runs one step; what `doubt` names is in doubt if it fails.
    mutating func attempt(_ body: () throws(Errno) -> Void) -> Bool {
        do throws(Errno) {
            try body()
            return true
        } catch {
            failures += 1
            return false
        }
    }

    mutating func run() {
        changeOldFiles()
        storeTrees()
        makeNewFiles()
        changeNames()
        changeDirectories()
        changeAttributes()
        changeLinks()
        moveTrees()
        replaceAttributes()
        storeTrees()
    }

    /// What a mount does each minute; it fails where it may, and is no operation of a program's.
    private func storeTrees() { try? test.volume.storeTrees() }

    /// Writes, truncations and holes in files that were there.
    private mutating func changeOldFiles() {
        change("old2", write: [UInt8](repeating: 0xA0, count: 50), at: 20)
        change("old3", write: [UInt8](repeating: 0xA1, count: 5000), at: 3000)
        change("old5", write: [UInt8](repeating: 0xA2, count: 10), at: 12_000)
        change("old6", truncateTo: 5000)
        change("old4", truncateTo: 30_000)
        change("old6", write: [UInt8](repeating: 0xA3, count: 5000), at: 14_000)
        punch("old5", at: 100, count: 8000)
        change("old0", write: [0xA4], at: 0)
        change("old5", truncateTo: 0)
    }

    private mutating func change(_ name: String, write bytes: [UInt8], at offset: Int) {
        guard var expected = files[name] else { return }
        var new = expected.bytes
        if new.count < offset + bytes.count {
            new.append(contentsOf: repeatElement(0, count: offset + bytes.count - new.count))
        }
        new.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        let done = withFile(name) { (file) throws(Errno) in
            try file.write(bytes, at: offset)
            try file.sync()
        }
        if done {
            expected.bytes = new
            expected.sizes = Set(expected.sizes.map { max($0, offset + bytes.count) })
        } else {
            expected.sizes.insert(new.count)
            expected.bytes = new.count > expected.bytes.count ? new : expected.bytes
            expected.open = join(expected.open, min(offset, expected.bytes.count)..<max(offset + bytes.count, 1))
        }
        files[name] = expected
    }

    private mutating func change(_ name: String, truncateTo size: Int) {
        guard var expected = files[name] else { return }
        let done = withFile(name) { (file) throws(Errno) in
            try file.truncate(to: size)
            try file.sync()
        }
        let old = expected.bytes
        let new = Array(old.prefix(size)) + [UInt8](repeating: 0, count: max(0, size - old.count))
        if done {
            expected.bytes = new
            expected.sizes = [size]
        } else {
            expected.sizes.insert(size)
            expected.bytes = new.count > old.count ? new : old
            if size < old.count { expected.open = join(expected.open, size..<old.count) }
        }
        files[name] = expected
    }

    private mutating func punch(_ name: String, at offset: Int, count: Int) {
        guard var expected = files[name] else { return }
        let done = withFile(name) { (file) throws(Errno) in
            try file.allocate([.punchHole, .keepSize], at: offset, count: count)
            try file.sync()
        }
        let end = min(offset + count, expected.bytes.count)
        guard offset < end else { return }
        if done {
            expected.bytes.replaceSubrange(offset..<end, with: repeatElement(0, count: end - offset))
        } else {
            expected.open = join(expected.open, offset..<end)
        }
        files[name] = expected
    }

    private func join(_ left: Range<Int>, _ right: Range<Int>) -> Range<Int> {
        left.isEmpty ? right : min(left.lowerBound, right.lowerBound)..<max(left.upperBound, right.upperBound)
    }

    private mutating func withFile(_ name: String, _ body: (TestFile) throws(Errno) -> Void) -> Bool {
        let test = test
        return attempt { () throws(Errno) in
            let file = try test.open(Name(Array(name.utf8)))
            defer { file.close() }
            try body(file)
        }
    }

    private mutating func makeNewFiles() {
        for (name, size) in [("new0", 0), ("new1", 10), ("new2", 10_000), (String(repeating: "n", count: 200), 5000)] {
            let bytes = [UInt8](repeating: 0xB0, count: size)
            let test = test
            let done = attempt { () throws(Errno) in
                let file = try test.create(Name(Array(name.utf8)))
                defer { file.close() }
                try file.write(bytes)
                try file.sync()
            }
            if done { files[name] = Expected(bytes) } else { doubtful.insert(name) }
        }
    }

    private mutating func changeNames() {
        let test = test
        move("old1", to: "moved1") { () throws(Errno) in try test.rename("old1", to: "moved1") }
        move("old2", to: String(repeating: "m", count: 255)) { () throws(Errno) in
            try test.rename("old2", to: Name(Array(repeating: 0x6D, count: 255)))
        }
        move("old3", to: "new1") { () throws(Errno) in try test.rename("old3", to: "new1") }
        let removed = attempt { () throws(Errno) in try test.unlink("old4") }
        if removed { files["old4"] = nil } else { doubt("old4") }
        let unlinked = attempt { () throws(Errno) in try test.unlink("longlink") }
        links["longlink"] = nil
        if !unlinked { doubtful.insert("longlink") }
        let target = [UInt8](repeating: 0x75, count: 3500)
        let linked = attempt { () throws(Errno) in
            let inode = try test.makeLink("newlink", to: target)
            test.volume.forget(inode, count: 1)
        }
        if linked { links["newlink"] = target } else { doubtful.insert("newlink") }
    }

    private mutating func move(_ old: String, to new: String, _ body: () throws(Errno) -> Void) {
        if attempt(body) {
            files[new] = files[old]
            files[old] = nil
            doubtful.remove(new)
            if doubtful.contains(old) { doubtful.insert(new) }
        } else {
            doubt(old)
            doubt(new)
        }
    }

    /// Both names may be there or not, but what is there can be read.
    mutating func doubt(_ name: String) {
        files[name] = nil
        doubtful.insert(name)
    }

    private mutating func changeDirectories() {
        let test = test
        let made = attempt { () throws(Errno) in
            let inode = try test.makeDirectory("dir2")
            test.volume.forget(inode, count: 1)
        }
        if made { directories.insert("dir2") } else { doubtful.insert("dir2") }
        let replaced = attempt { () throws(Errno) in try test.rename("dir", to: "dir2") }
        if replaced {
            directories.remove("dir")
            directories.insert("dir2")
            doubtful.remove("dir2")
        } else {
            directories.subtract(["dir", "dir2"])
            doubtful.formUnion(["dir", "dir2"])
        }
        let again = attempt { () throws(Errno) in
            let inode = try test.makeDirectory("dir3")
            test.volume.forget(inode, count: 1)
            try test.removeDirectory("dir3")
        }
        if !again { doubtful.insert("dir3") }
    }

    private mutating func changeAttributes() {
        let test = test
        for name in ["link", "new2"] where files[name] != nil || links[name] != nil {
            let key = name == "link" ? "trusted.a" : "user.a"
            let done = attempt { () throws(Errno) in
                let inode = try test.lookUp(Name(Array(name.utf8))).inode
                defer { test.volume.forget(inode, count: 1) }
                try test.setAttribute(inode, key, [1, 2, 3])
            }
            if done { attributes[name] = [key: [1, 2, 3]] }
        }
    }
}

extension FaultWorkload {
    /// Mounts again, and compares. Returns what is wrong.
    func verify(_ ending: Ending) throws -> [String] {
        var problems = test.takeDamages().map { "damage while running: \($0)" }
        switch ending {
        case .close:
            try test.close()
            try test.open()
        case .crash: try test.open()
        }
        for (name, expected) in files {
            do {
                let bytes = try test.read(Name(Array(name.utf8)))
                // A truncate that failed may have stopped at a page between the old end and the new one.
                let isBetween = (expected.sizes.min() ?? 0)...(expected.sizes.max() ?? 0) ~= bytes.count
                if !isBetween {
                    problems.append("\(name.prefix(20)): \(bytes.count) bytes, not \(expected.sizes)")
                }
                for index in 0..<min(bytes.count, expected.bytes.count)
                where !expected.open.contains(index) && bytes[index] != expected.bytes[index] {
                    problems.append(
                        "\(name.prefix(20)): byte \(index) is \(bytes[index]), not \(expected.bytes[index])")
                    break
                }
            } catch { problems.append("\(name.prefix(20)): \(error)") }
        }
        for (name, target) in links {
            let found = try? test.volume.readLink(try test.lookUp(Name(Array(name.utf8))).inode)
            if found != target { problems.append("link \(name)") }
        }
        for (name, all) in attributes {
            for (key, value) in all {
                let found = try? test.volume.getAttribute(try test.lookUp(Name(Array(name.utf8))).inode, key)
                if found != value { problems.append("attribute of \(name)") }
            }
        }
        let certain = Set(files.keys).union(links.keys).union(directories)
        let names = Set(try test.list().map { String(decoding: $0.bytes, as: UTF8.self) })
        problems += certain.subtracting(names).map { "\($0.prefix(20)) is missing" }
        problems += names.subtracting(certain).subtracting(doubtful).map { "\($0.prefix(20)) is too many" }
        problems += test.check().findings.map { "check: \($0)" }
        return problems
    }
}
