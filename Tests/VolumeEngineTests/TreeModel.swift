import CLinux
import Storage
import VolumeEngine

/// What a volume must hold: paths and what they lead to, without any of the engine's ways.
struct TreeModel: Equatable {
    enum Entry: Equatable {
        /// Number of a file; hard links share it.
        case file(Int)
        case directory
        case link([UInt8])
    }

    /// By path; the root is "".
    var entries: [String: Entry] = ["": .directory]
    var contents: [Int: [UInt8]] = [:]
    /// Extended attributes by path of a directory, or "#number" of a file.
    var attributes: [String: [String: [UInt8]]] = [:]

    static func parent(_ path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "" }
        return String(path[..<slash])
    }

    static func name(_ path: String) -> Name {
        Name(Array((path.split(separator: "/").last ?? "").utf8))
    }

    func children(_ path: String) -> [String] {
        entries.keys.filter { !$0.isEmpty && Self.parent($0) == path }
    }

    func paths(_ matches: (Entry) -> Bool) -> [String] {
        entries.filter { !$0.key.isEmpty && matches($0.value) }.keys.sorted()
    }

    var files: [String] { paths { if case .file = $0 { true } else { false } } }
    var directories: [String] { [""] + paths { $0 == .directory } }

    func file(_ path: String) -> Int? {
        if case .file(let number) = entries[path] { return number }
        return nil
    }

    func attributeKey(_ path: String) -> String { file(path).map { "#\($0)" } ?? path }

    mutating func write(_ number: Int, _ bytes: [UInt8], at offset: Int) {
        var old = contents[number] ?? []
        if old.count < offset + bytes.count { old += repeatElement(0, count: offset + bytes.count - old.count) }
        old.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        contents[number] = old
    }

    mutating func truncate(_ number: Int, to size: Int) {
        let old = contents[number] ?? []
        contents[number] = Array(old.prefix(size)) + [UInt8](repeating: 0, count: max(0, size - old.count))
    }

    mutating func remove(_ path: String) {
        if case .directory = entries[path] { attributes[path] = nil }
        entries[path] = nil
    }

    /// rename(2) of something that does not lie above its new place.
    mutating func rename(_ old: String, to new: String) {
        remove(new)
        for path in entries.keys where path == old || path.hasPrefix(old + "/") {
            let moved = new + path.dropFirst(old.count)
            entries[moved] = entries.removeValue(forKey: path)
            if let values = attributes.removeValue(forKey: path) { attributes[moved] = values }
        }
    }
}

extension TestVolume {
    /// Calls `body` with the directory of a path; the root's is `nil`.
    func withDirectory<R>(_ path: String, _ body: (Inode?) throws -> R) throws -> R {
        var held: [Inode] = []
        defer { for inode in held.reversed() { volume.forget(inode, count: 1) } }
        for part in path.split(separator: "/") {
            held.append(try lookUp(Name(Array(part.utf8)), in: held.last).inode)
        }
        return try body(held.last)
    }

    func withParent<R>(_ path: String, _ body: (Inode?, Name) throws -> R) throws -> R {
        try withDirectory(TreeModel.parent(path)) { try body($0, TreeModel.name(path)) }
    }

    func withInode<R>(_ path: String, _ body: (Inode) throws -> R) throws -> R {
        guard !path.isEmpty else { return try body(top) }
        return try withParent(path) { parent, name in
            let inode = try lookUp(name, in: parent).inode
            defer { volume.forget(inode, count: 1) }
            return try body(inode)
        }
    }

    /// What is there differs from the model in these ways.
    func differences(_ model: TreeModel) throws -> [String] {
        var wrong: [String] = []
        for (path, entry) in model.entries {
            switch entry {
            case .directory:
                let wanted = Set(model.children(path).map(TreeModel.name))
                let found = try withDirectory(path) { try list($0) }
                if found != wanted { wrong.append("\(path): \(found.count) names, not \(wanted.count)") }
            case .link(let target):
                if try withInode(path, { try volume.readLink($0) }) != target { wrong.append("\(path): target") }
            case .file(let number):
                let found = try withParent(path) { parent, name in try read(name, in: parent) }
                let wanted = model.contents[number] ?? []
                if found != wanted {
                    let at = zip(found, wanted).prefix { $0 == $1 }.count
                    wrong.append("\(path): \(found.count) bytes, not \(wanted.count); differ at \(at)")
                }
            }
            let wanted = model.attributes[model.attributeKey(path)] ?? [:]
            try withInode(path) { inode in
                guard inode.kind != .symbolicLink else { return }
                var found: [String: [UInt8]] = [:]
                for name in try volume.listAttributes(inode) { found[name] = try volume.getAttribute(inode, name) }
                if found != wanted { wrong.append("\(path): attributes \(found.keys) not \(wanted.keys)") }
            }
        }
        return wrong
    }
}
