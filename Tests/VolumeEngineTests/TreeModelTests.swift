import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine

/// Random operations on a volume and on a model of it, with clean remounts and with crashes in between: all that returned
/// before the process died is there after it. (What the machine's crash leaves is for Tests/crashlab.)
@Suite struct TreeModelTests {
    private static let operations = 700
    private static let pieces = [1, 100, 3551, 3552, 3553, 4064, 7616, 20_000]

    @Test(arguments: [11, 12, 13, 14])
    func randomOperations(seed: UInt64) throws {
        var run = Run(try TestVolume(inMemory: true), seed: seed)
        for step in 0..<Self.operations {
            try run.step()
            if step % 140 == 139 { #expect(try run.compare() == [], "seed \(seed), step \(step)") }
        }
        try run.endCleanly()
        #expect(try run.compare() == [], "seed \(seed), at the end")
    }

    private struct Run {
        let test: TestVolume
        var model = TreeModel()
        var generator: SeededGenerator
        /// Open files by number, over unlinks and renames.
        var held: [Int: TestFile] = [:]
        var made = 0

        init(_ test: TestVolume, seed: UInt64) {
            self.test = test
            generator = SeededGenerator(seed: seed)
        }

        mutating func pick<T>(_ list: [T]) -> T? { list.isEmpty ? nil : list[generator.below(list.count)] }

        mutating func newPath() -> String {
            made += 1
            let directory = pick(model.directories) ?? ""
            let long = generator.below(5) == 0 ? String(repeating: "x", count: 150 + generator.below(90)) : ""
            return (directory.isEmpty ? "" : directory + "/") + "n\(made)" + long
        }

        mutating func step() throws {
            switch generator.below(100) {
            case 0..<14: try create()
            case 14..<20: try makeDirectory()
            case 20..<48: try write()
            case 48..<58: try truncate()
            case 58..<70: try rename()
            case 70..<75: try link()
            case 75..<83: try remove()
            case 83..<86: try makeLink()
            case 86..<93: try changeAttribute()
            case 93..<95: try hold()
            case 95..<97: try letGo()
            case 97: try endCleanly()
            default: try crash()
            }
        }

        private mutating func create() throws {
            let path = newPath()
            try test.withParent(path) { parent, name in try test.create(name, in: parent).close() }
            model.entries[path] = .file(made)
            model.contents[made] = []
        }

        private mutating func makeDirectory() throws {
            guard model.directories.count < 12 else { return }
            let path = newPath()
            try test.withParent(path) { parent, name in
                test.volume.forget(try test.makeDirectory(name, in: parent), count: 1)
            }
            model.entries[path] = .directory
        }

        private mutating func makeLink() throws {
            let path = newPath()
            let target = generator.bytes(1 + generator.below(3900)).map { $0 == 0 ? 1 : $0 }
            try test.withParent(path) { parent, name in
                test.volume.forget(try test.makeLink(name, to: target, in: parent), count: 1)
            }
            model.entries[path] = .link(target)
        }

        /// Works on a file that is held open, or opens one by a name of it.
        private mutating func withFile(_ body: (inout Self, TestFile, Int) throws -> Void) throws {
            if generator.below(3) == 0, let number = pick(held.keys.sorted()), let file = held[number] {
                return try body(&self, file, number)
            }
            guard let path = pick(model.files), let number = model.file(path) else { return }
            let file = try test.withParent(path) { parent, name in try test.open(name, in: parent) }
            defer { file.close() }
            try body(&self, file, number)
        }

        private mutating func write() throws {
            try withFile { run, file, number in
                let size = run.model.contents[number]?.count ?? 0
                let offset =
                    run.generator.below(4) == 0 ? size + run.generator.below(9000) : run.generator.below(size + 1)
                let bytes = run.generator.bytes(TreeModelTests.pieces[run.generator.below(TreeModelTests.pieces.count)])
                guard offset + bytes.count < 120_000 else { return }
                try file.write(bytes, at: offset)
                if run.generator.below(4) == 0 { try file.sync() }
                run.model.write(number, bytes, at: offset)
            }
        }

        private mutating func truncate() throws {
            try withFile { run, file, number in
                let size = run.generator.below((run.model.contents[number]?.count ?? 0) + 6000)
                try file.truncate(to: size)
                run.model.truncate(number, to: size)
            }
        }

        private mutating func rename() throws {
            guard let old = pick(model.paths { _ in true }) else { return }
            var new = newPath()
            // Half of them replace a file.
            if model.file(old) != nil, generator.below(2) == 0, let other = pick(model.files),
                model.file(other) != model.file(old)
            {
                new = other
            }
            guard !(new + "/").hasPrefix(old + "/") else { return }
            try test.withParent(old) { oldParent, oldName in
                try test.withParent(new) { newParent, newName in
                    try test.rename(oldName, in: oldParent, to: newName, inside: newParent)
                }
            }
            model.rename(old, to: new)
        }

        private mutating func link() throws {
            guard let old = pick(model.files) else { return }
            let new = newPath()
            try test.withInode(old) { inode in
                try test.withParent(new) { parent, name in
                    test.volume.forget(try test.link(inode, as: name, in: parent), count: 1)
                }
            }
            model.entries[new] = model.entries[old]
        }

        private mutating func remove() throws {
            guard let path = pick(model.paths { _ in true }) else { return }
            let isDirectory = model.entries[path] == .directory
            if isDirectory, !model.children(path).isEmpty {
                let failure = #expect(throws: Errno.self) {
                    try test.withParent(path) { parent, name in try test.removeDirectory(name, in: parent) }
                }
                #expect(failure == .notEmpty)
                return
            }
            try test.withParent(path) { parent, name in
                if isDirectory {
                    try test.removeDirectory(name, in: parent)
                } else {
                    try test.unlink(name, in: parent)
                }
            }
            model.remove(path)
        }

        private mutating func changeAttribute() throws {
            guard let path = pick(model.files + model.directories) else { return }
            let key = model.attributeKey(path)
            let name = "user.\(generator.below(3))"
            let isThere = model.attributes[key]?[name] != nil
            let value = generator.bytes(1 + generator.below(200))
            let removes = isThere && generator.below(3) == 0
            try test.withInode(path) { inode in
                if removes {
                    try test.volume.removeAttribute(inode, name)
                } else {
                    try test.setAttribute(inode, name, value)
                }
            }
            model.attributes[key, default: [:]][name] = removes ? nil : value
        }

        private mutating func hold() throws {
            guard held.count < 5, let path = pick(model.files), let number = model.file(path), held[number] == nil
            else {
                return
            }
            held[number] = try test.withParent(path) { parent, name in try test.open(name, in: parent) }
        }

        private mutating func letGo() throws {
            guard let number = pick(held.keys.sorted()) else { return }
            held.removeValue(forKey: number)?.close()
        }

        mutating func endCleanly() throws {
            for file in held.values { file.close() }
            held = [:]
            try test.remount()
        }

        /// What is held open is never closed: its memory goes with the process that is meant.
        private mutating func crash() throws {
            held = [:]
            try test.crash()
        }

        /// The volume against the model, and what a check says.
        func compare() throws -> [String] {
            try test.differences(model) + test.check().findings.map { "check: \($0)" }
        }
    }
}
