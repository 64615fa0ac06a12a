import CLinux
import Storage
import VolumeEngine

/// The engine's calls with arrays and strings. Names are bytes: `Array("name".utf8)`, or a string literal.
struct Name: ExpressibleByStringLiteral, ExpressibleByStringInterpolation, Hashable, Sendable {
    let bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }
    init(stringLiteral value: String) { bytes = Array(value.utf8) }
}

extension TestVolume {
    func named<R>(_ name: Name, _ body: (UnsafeRawBufferPointer) throws(Errno) -> R) throws(Errno) -> R {
        try name.bytes.withUnsafeBufferPointer { (buffer) throws(Errno) in try body(UnsafeRawBufferPointer(buffer)) }
    }

    /// Creates a file and opens it; the caller closes it.
    func create(_ name: Name, in parent: Inode? = nil, mode: mode_t = 0o644) throws(Errno) -> TestFile {
        let (parent, volume) = (parent ?? top, volume)
        let made = try named(name) { (bytes) throws(Errno) in
            try volume.create(parent, bytes, mode: mode, flags: O_EXCL | O_RDWR, Self.root)
        }
        return TestFile(made.entry.inode, made.content, volume)
    }

    func lookUp(_ name: Name, in parent: Inode? = nil) throws(Errno) -> Entry {
        let (parent, volume) = (parent ?? top, volume)
        return try named(name) { (bytes) throws(Errno) in try volume.lookUp(parent, bytes) }
    }

    /// Opens a file by name; the caller closes it.
    func open(_ name: Name, in parent: Inode? = nil, forWriting: Bool = true) throws(Errno) -> TestFile {
        let inode = try lookUp(name, in: parent).inode
        do throws(Errno) {
            return TestFile(inode, try volume.openContent(inode, forWriting: forWriting), volume)
        } catch {
            volume.forget(inode, count: 1)
            throw error
        }
    }

    /// A new file with some content, closed.
    func write(_ name: Name, _ bytes: [UInt8], in parent: Inode? = nil) throws {
        let file = try create(name, in: parent)
        defer { file.close() }
        try file.write(bytes)
    }

    /// The whole content of a file.
    func read(_ name: Name, in parent: Inode? = nil) throws -> [UInt8] {
        let file = try open(name, in: parent, forWriting: false)
        defer { file.close() }
        return try file.readAll()
    }

    func makeDirectory(_ name: Name, in parent: Inode? = nil) throws(Errno) -> Inode {
        let (parent, volume) = (parent ?? top, volume)
        return try named(name) { (bytes) throws(Errno) in
            try volume.makeDirectory(parent, bytes, mode: 0o755, Self.root)
        }.inode
    }

    func makeLink(_ name: Name, to target: [UInt8], in parent: Inode? = nil) throws(Errno) -> Inode {
        let (parent, volume) = (parent ?? top, volume)
        let entry = try named(name) { (name) throws(Errno) in
            try target.withUnsafeBufferPointer { (target) throws(Errno) in
                try volume.makeSymbolicLink(parent, name, target: UnsafeRawBufferPointer(target), Self.root)
            }
        }
        return entry.inode
    }

    func unlink(_ name: Name, in parent: Inode? = nil) throws(Errno) {
        let (parent, volume) = (parent ?? top, volume)
        try named(name) { (bytes) throws(Errno) in try volume.unlink(parent, bytes) }
    }

    func removeDirectory(_ name: Name, in parent: Inode? = nil) throws(Errno) {
        let (parent, volume) = (parent ?? top, volume)
        try named(name) { (bytes) throws(Errno) in try volume.removeDirectory(parent, bytes) }
    }

    func rename(
        _ old: Name, in oldParent: Inode? = nil, to new: Name, inside newParent: Inode? = nil, flags: Int32 = 0
    ) throws(Errno) {
        let (oldParent, newParent, volume) = (oldParent ?? top, newParent ?? top, volume)
        try named(old) { (old) throws(Errno) in
            try named(new) { (new) throws(Errno) in
                try volume.rename(oldParent, old, newParent, new, flags: UInt32(flags))
            }
        }
    }

    func link(_ inode: Inode, as name: Name, in parent: Inode? = nil) throws(Errno) -> Inode {
        let (parent, volume) = (parent ?? top, volume)
        return try named(name) { (bytes) throws(Errno) in try volume.link(inode, to: parent, bytes) }.inode
    }

    /// Names in a directory, without "." and "..".
    func list(_ inode: Inode? = nil) throws(Errno) -> Set<Name> {
        var names: Set<Name> = []
        try volume.openDirectory(inode ?? top).read { (item) throws(Errno) in
            if !item.isDot { names.insert(Name([UInt8](item.name))) }
            return true
        }
        return names
    }

    func setAttribute(_ inode: Inode, _ name: String, _ value: [UInt8], flags: Int = 0) throws(Errno) {
        let volume = volume
        try value.withUnsafeBufferPointer { (buffer) throws(Errno) in
            try volume.setAttribute(inode, name, UnsafeRawBufferPointer(buffer), flags: Int32(flags))
        }
    }
}

/// An open file.
final class TestFile {
    let inode: Inode
    let content: FileContent
    private let volume: Volume

    init(_ inode: Inode, _ content: FileContent, _ volume: Volume) {
        self.inode = inode
        self.content = content
        self.volume = volume
    }

    var size: Int { Int(content.size) }

    func write(_ bytes: [UInt8], at offset: Int = 0) throws(Errno) {
        let buffer = volume.buffers.take()
        defer { volume.buffers.give(buffer) }
        for start in stride(from: 0, to: bytes.count, by: RequestBuffer.maximumRequest) {
            let end = min(start + RequestBuffer.maximumRequest, bytes.count)
            try bytes.withUnsafeBufferPointer { (bytes) throws(Errno) in
                try content.write(
                    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[start..<end]),
                    at: UInt64(offset + start), buffer)
            }
        }
    }

    func read(at offset: Int, count: Int) throws(Errno) -> [UInt8] {
        let buffer = volume.buffers.take()
        defer { volume.buffers.give(buffer) }
        return [UInt8](try content.read(at: UInt64(offset), count: count, buffer))
    }

    func readAll() throws(Errno) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < size {
            let more = try read(at: bytes.count, count: RequestBuffer.maximumRequest)
            if more.isEmpty { break }
            bytes += more
        }
        return bytes
    }

    func truncate(to size: Int) throws(Errno) { try content.truncate(to: UInt64(size)) }

    func allocate(_ mode: AllocateMode, at offset: Int, count: Int) throws(Errno) {
        try content.allocate(mode, at: UInt64(offset), count: UInt64(count))
    }

    func sync() throws(Errno) { try FileHandle(content, isWriter: true).sync(dataOnly: false) }

    /// Closes, and forgets the reference that opening by name took.
    func close() {
        volume.closeContent(content)
        volume.forget(inode, count: 1)
    }
}
