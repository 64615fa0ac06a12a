import CLinux
import Ciphers
import KeyManagement
import Secrets
import Storage
import TestSupport
import VolumeEngine
import VolumeFormat

/// The volume that is kept for ever, one for each format version: how it is filled, and what a walk says about it.
enum GoldenVolume {
    static let sizes = [0, 1, 3551, 3552, 3553, 4096, 7615, 7616, 7617, 20_000, 100_000]

    /// The CMK of all golden volumes: 32 bytes, 0 to 31, under the name "test:golden". It makes no version keys, which would go with
    /// the process.
    static func cmk() throws -> InMemoryCMK {
        try InMemoryCMK("test:golden", keyBytes: [UInt8](0..<32), makesVersionKeys: false)
    }

    /// Fills an empty volume with an object of each kind; returns the files that are still open.
    static func fill(_ test: TestVolume) throws -> [TestFile] {
        var generator = SeededGenerator(seed: 2026)
        var open: [TestFile] = []
        for size in sizes {
            let file = try test.create(Name(stringLiteral: "size-\(size)"), mode: size % 2 == 0 ? 0o640 : 0o755)
            try file.write(generator.bytes(size))
            try file.sync()
            open.append(file)
        }
        let sparse = try test.create("sparse")
        try sparse.write(generator.bytes(100), at: 50_000)
        try sparse.truncate(to: 90_000)
        try sparse.write(generator.bytes(5000), at: 3000)
        try sparse.allocate([.punchHole, .keepSize], at: 4000, count: 40_000)
        try sparse.sync()
        open.append(sparse)
        try fillTree(test, &generator)
        return open
    }

    private static func fillTree(_ test: TestVolume, _ generator: inout SeededGenerator) throws {
        let directory = try test.makeDirectory("directory")
        let deeper = try test.makeDirectory(Name([UInt8](repeating: 0x64, count: 255)), in: directory)
        for count in [1, 8, 9, 176, 177, 255] {
            try test.write(Name([UInt8](repeating: 0x6E, count: count)), generator.bytes(count), in: deeper)
        }
        try test.write("na\u{EF}ve \u{2603}", [1], in: directory)
        try test.write(Name([0xFF, 0xFE, 0x0A, 0x80]), [2], in: directory)
        for count in [1, 100, 3037, 3038, 3039, 3040, 4095] {
            let target = generator.bytes(count).map { $0 == 0 ? 1 : $0 }
            _ = try test.makeLink(Name(stringLiteral: "link-\(count)"), to: target, in: directory)
        }
        let file = try test.lookUp("size-1").inode
        _ = try test.link(file, as: "hard", in: deeper)
        try test.setAttribute(file, "user.empty", [])
        try test.setAttribute(file, "user.long", generator.bytes(1500))
        try test.setAttribute(directory, "user.of-directory", [1, 2, 3])
        let volume = test.volume
        _ = try test.named("fifo") { (name) throws(Errno) in
            try volume.makeNode(directory, name, mode: mode_t(S_IFIFO) | 0o600, device: 0, TestVolume.root)
        }
    }

    /// One line for each object: kind, mode, links, size, digest of its content, attributes and their digests, path.
    static func manifest(_ test: TestVolume) throws -> [String] {
        var lines: [String] = []
        var pending: [(Inode, String)] = [(test.top, "")]
        while let (inode, path) = pending.popLast() {
            for name in try test.list(inode) {
                let entry = try test.lookUp(name, in: inode)
                let child = path + "/" + escaped(name)
                if entry.inode.kind == .directory { pending.append((entry.inode, child)) }
                lines.append(try line(test, entry, name, inode, child))
            }
        }
        return lines.sorted()
    }

    private static func line(
        _ test: TestVolume, _ entry: Entry, _ name: Name, _ parent: Inode, _ path: String
    ) throws -> String {
        let content: [UInt8] =
            switch entry.inode.kind {
            case .regular: try test.read(name, in: parent)
            case .symbolicLink: try test.volume.readLink(entry.inode)
            case .directory, .special: []
            }
        let isDirectory = entry.inode.kind == .directory
        let attributes = try test.volume.listAttributes(entry.inode).sorted().map { name in
            "\(name)=\(try digest(try test.volume.getAttribute(entry.inode, name)))"
        }
        let facts = [
            "\(entry.inode.kind)", String(entry.attributes.st_mode & 0o7777, radix: 8),
            isDirectory ? "-" : "\(entry.attributes.st_nlink)", isDirectory ? "-" : "\(entry.attributes.st_size)",
            try digest(content),
        ]
        return (facts + attributes + [path]).joined(separator: " ")
    }

    /// The first 16 bytes of HMAC-SHA256 under a key of zeros.
    private static func digest(_ bytes: [UInt8]) throws -> String {
        let key = SecretKey { _ in }
        return Hex.encode(try HMACSHA256.code(key: key, message: bytes).prefix(16))
    }

    private static func escaped(_ name: Name) -> String {
        name.bytes.map { byte in
            (0x21...0x7E).contains(byte) && byte != 0x25 ? String(UnicodeScalar(byte)) : "%" + Hex.encode([byte])
        }.joined()
    }
}
