import CLinux
import Storage
import Synchronization
import VolumeFormat

/// Reads everything that a volume holds, and tells what cannot be read, by plaintext path.
package struct VolumeCheck {
    package struct Finding: Sendable, Equatable {
        /// Plaintext path from the root; bytes that are no UTF-8 are shown as U+FFFD.
        package var path: String
        package var object: String
        package var page: UInt64?
        package var reason: String
    }

    package struct Report: Sendable, Equatable {
        package var directories = 0
        package var files = 0
        package var links = 0
        package var others = 0
        package var bytes: UInt64 = 0
        package var findings: [Finding] = []
    }

    /// Collects what the engine says while one object is read.
    package final class Observer: Sendable {
        private let seen = Mutex<[Damage]>([])
        package init() {}
        package func note(_ damage: Damage) { seen.withLock { $0.append(damage) } }
        fileprivate func take() -> [Damage] {
            seen.withLock { seen in
                defer { seen = [] }
                return seen
            }
        }
    }

    private let volume: Volume
    private let observer: Observer
    private let onProgress: (Report) -> Void
    private var report = Report()
    private let buffer: RequestBuffer

    /// `observer` is the one that the volume was opened with. `onProgress` is called after each file.
    package init(_ volume: Volume, observer: Observer, onProgress: @escaping (Report) -> Void) {
        self.volume = volume
        self.observer = observer
        self.onProgress = onProgress
        buffer = volume.buffers.take()
    }

    /// Walks the whole tree.
    package mutating func run() -> Report {
        // What was met before is not of this walk.
        _ = observer.take()
        // Directories still to be read, each with one reference of ours.
        var pending: [(Inode, String)] = [(volume.rootInode, "")]
        while let (inode, path) = pending.popLast() {
            pending += check(directory: inode, path)
            if inode !== volume.rootInode { volume.forget(inode, count: 1) }
        }
        return report
    }

    private mutating func check(directory inode: Inode, _ path: String) -> [(Inode, String)] {
        report.directories += 1
        var below: [(Inode, String)] = []
        var others: [(Inode, String)] = []
        let failure = attempt {
            let stream = try volume.openDirectory(inode)
            try stream.read(from: 0) { (item) throws(Errno) in
                guard let entry = try stream.entry(item) else { return true }
                let child = path + "/" + String(decoding: item.name, as: UTF8.self)
                if entry.inode.kind == .directory {
                    below.append((entry.inode, child))
                } else {
                    others.append((entry.inode, child))
                }
                return true
            }
            _ = try volume.listAttributes(inode)
        }
        conclude(path.isEmpty ? "/" : path, failure)
        for (child, childPath) in others {
            check(child, childPath)
            volume.forget(child, count: 1)
        }
        return below
    }

    private mutating func check(_ inode: Inode, _ path: String) {
        let failure = attempt {
            switch inode.kind {
            case .regular:
                report.files += 1
                let content = try volume.openContent(inode, forWriting: false)
                defer { volume.closeContent(content) }
                var offset: UInt64 = 0
                while offset < content.size {
                    do {
                        let data = try content.read(at: offset, count: RequestBuffer.maximumRequest, buffer)
                        if data.isEmpty { break }
                        report.bytes += UInt64(data.count)
                        offset += UInt64(data.count)
                    } catch {
                        // Go on page by page, so that every damaged one is named.
                        offset = try readByPages(content, from: offset)
                    }
                }
            case .symbolicLink:
                report.links += 1
                _ = try volume.readLink(inode)
            case .directory, .special: report.others += 1
            }
            for name in try volume.listAttributes(inode) { _ = try volume.getAttribute(inode, name) }
        }
        conclude(path, failure)
        onProgress(report)
    }

    /// Reads what one request would, page by page; returns where it ended.
    private mutating func readByPages(_ content: FileContent, from start: UInt64) throws(Errno) -> UInt64 {
        // What the whole request met is met again, one page at a time.
        _ = observer.take()
        let end = min(content.size, start + UInt64(RequestBuffer.maximumRequest))
        var offset = start
        while offset < end {
            let page = Geometry.page(at: offset)
            let next = Geometry.plainStart(of: page) + UInt64(Geometry.capacity(of: page))
            do throws(Errno) {
                report.bytes += UInt64(try content.read(at: offset, count: Int(next - offset), buffer).count)
            } catch { guard error == .io else { throw error } }
            offset = next
        }
        return offset
    }

    private func attempt(_ body: () throws -> Void) -> Errno? {
        do {
            try body()
            return nil
        } catch { return error as? Errno ?? .io }
    }

    private mutating func conclude(_ path: String, _ failure: Errno?) {
        let damages = observer.take()
        report.findings += damages.map {
            Finding(path: path, object: $0.object.rawValue, page: $0.page, reason: $0.reason)
        }
        if let failure, damages.isEmpty {
            report.findings.append(Finding(path: path, object: "lower storage", page: nil, reason: failure.message))
        }
    }
}
