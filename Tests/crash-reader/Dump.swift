import CLinux
import FoundationEssentials
import Storage
import VolumeEngine
import VolumeFormat

/// One entry as it is told; `bytes` of contents follow the line.
struct Told: Encodable {
    var path: String
    var kind: String
    var inode: UInt64
    var size: UInt64 = 0
    /// Of what could not be opened, listed or asked.
    var errno: Int32?
    /// Ranges of the contents that gave EIO; zeros stand for them.
    var bad: [[UInt64]] = []
    var target: String?
    /// Values in hexadecimal.
    var attributes: [String: String] = [:]
    var damage: [String] = []
    var bytes = 0
}

/// Standard output, collected for one state.
struct Output {
    private var bytes: [UInt8] = []

    mutating func tell(_ told: Told, _ contents: [UInt8]) {
        var told = told
        told.bytes = contents.count
        guard let line = try? JSONEncoder().encode(told) else { return }
        bytes += line
        bytes.append(10)
        bytes += contents
    }

    mutating func end(_ failure: String?) {
        guard let line = try? JSONEncoder().encode(["end": failure ?? ""]) else { return }
        bytes += line
        bytes.append(10)
    }

    mutating func flush() {
        bytes.withUnsafeBytes { buffer in
            var done = 0
            while done < buffer.count {
                let count = write(1, buffer.baseAddress.map { $0 + done }, buffer.count - done)
                if count <= 0 { exit(1) }
                done += count
            }
        }
        bytes = []
    }
}

/// Walks a volume and tells all that a program would see.
final class Dump {
    private let volume: Volume
    private let log: DamageLog

    init(_ volume: Volume, _ log: DamageLog) {
        self.volume = volume
        self.log = log
    }

    func run(_ output: inout Output) {
        var pending: [(Inode, String)] = [(volume.rootInode, "")]
        while let (inode, path) = pending.popLast() {
            var told = Told(path: path, kind: "directory", inode: inode.number)
            var found: [(Inode, String)] = []
            told.errno = attempt {
                let stream = try volume.openDirectory(inode)
                try stream.read { (item) throws(Errno) in
                    guard let entry = try volume.entry(item, in: inode) else { return true }
                    let name = String(decoding: item.name, as: UTF8.self)
                    found.append((entry.inode, path.isEmpty ? name : path + "/" + name))
                    return true
                }
                told.attributes = try attributes(inode)
            }
            told.damage = log.take()
            output.tell(told, [])
            for (child, childPath) in found {
                if child.kind == .directory {
                    pending.append((child, childPath))
                } else {
                    leaf(child, childPath, &output)
                    volume.forget(child, count: 1)
                }
            }
            if inode !== volume.rootInode { volume.forget(inode, count: 1) }
        }
    }

    private func leaf(_ inode: Inode, _ path: String, _ output: inout Output) {
        let kind = inode.kind == .regular ? "file" : inode.kind == .symbolicLink ? "link" : "other"
        var told = Told(path: path, kind: kind, inode: inode.number)
        var contents: [UInt8] = []
        told.errno = attempt {
            told.attributes = try attributes(inode)
            switch inode.kind {
            case .symbolicLink:
                told.target = String(decoding: try volume.readLink(inode), as: UTF8.self)
            case .regular:
                let content = try volume.openContent(inode, forWriting: false)
                defer { volume.closeContent(content) }
                told.size = content.size
                try read(content, &told, &contents)
            case .directory, .special: break
            }
        }
        told.damage = log.take()
        output.tell(told, contents)
    }

    /// Reads page by page, so that each byte that cannot be read is known.
    private func read(_ content: FileContent, _ told: inout Told, _ contents: inout [UInt8]) throws(Errno) {
        let buffer = volume.buffers.take()
        defer { volume.buffers.give(buffer) }
        var offset: UInt64 = 0
        while offset < content.size {
            do throws(Errno) {
                let data = try content.read(at: offset, count: RequestBuffer.maximumRequest, buffer)
                contents += data
                offset += UInt64(data.count)
                if data.isEmpty { return }
            } catch {
                guard error == .io else { throw error }
                let page = Geometry.page(at: offset)
                let next = min(
                    content.size, Geometry.plainStart(of: page) + UInt64(Geometry.capacity(of: page)))
                do throws(Errno) {
                    contents += try content.read(at: offset, count: Int(next - offset), buffer)
                } catch {
                    guard error == .io else { throw error }
                    told.bad.append([offset, next])
                    contents += repeatElement(0, count: Int(next - offset))
                }
                offset = next
            }
        }
    }

    private func attributes(_ inode: Inode) throws(Errno) -> [String: String] {
        var result: [String: String] = [:]
        for name in try volume.listAttributes(inode) {
            let value = try volume.getAttribute(inode, name)
            result[name] = value.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        }
        return result
    }

    private func attempt(_ body: () throws -> Void) -> Int32? {
        do {
            try body()
            return nil
        } catch { return (error as? Errno ?? .io).rawValue }
    }
}
