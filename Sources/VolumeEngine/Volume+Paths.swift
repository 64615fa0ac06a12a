import Storage
import Synchronization
import VolumeFormat

/// From inodes back to names, for people and for the kernel's cache of names.
extension Volume {
    /// Where the kernel may know an inode by name: the parent's node, and the plaintext name. `nil` for the root, for what has no name
    /// any more, and where keys are missing.
    package func knownName(_ inode: Inode) -> (parent: UInt64, name: [UInt8])? {
        guard let location = inode.state.withLock({ $0.location }),
            let handle = try? handle(location.parent)
        else { return nil }
        return withUnsafeTemporaryAllocation(byteCount: 320, alignment: 16) { output in
            let decoded = location.name.withUnsafeBufferPointer { stored in
                handle.decode(
                    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(stored)[..<(stored.count - 1)]),
                    into: output)
            }
            guard case .name(let count) = decoded else { return nil }
            return (location.parent.node, Array(output[..<count]))
        }
    }

    /// The plaintext path from the volume's root, without a leading slash; `nil` where it cannot be told.
    package func path(of inode: Inode) -> [UInt8]? {
        var parts: [[UInt8]] = []
        var current = inode
        while current !== rootInode {
            guard parts.count < Self.maximumDepth, let known = knownName(current),
                let parent = current.state.withLock({ $0.location?.parent })
            else { return nil }
            parts.append(known.name)
            current = parent
        }
        return Array(parts.reversed().joined(separator: [UInt8(ascii: "/")]))
    }

    /// The inode at a plaintext path from the root, with one more reference; "" is the root.
    package func resolve(_ path: String) throws(Errno) -> Inode {
        var current = rootInode
        table.retain(current)
        for part in path.split(separator: "/") {
            let parent = current
            defer { table.release(parent) }
            current = try lookUp(parent, Array(part.utf8)).inode
        }
        return current
    }

    private func lookUp(_ parent: Inode, _ name: [UInt8]) throws(Errno) -> Entry {
        try name.withUnsafeBufferPointer { (name) throws(Errno) in try lookUp(parent, UnsafeRawBufferPointer(name)) }
    }

    /// The UUID of the directory or regular file at a plaintext path.
    package func identity(of path: String) throws(Errno) -> UniqueID {
        let inode = try resolve(path)
        defer { table.release(inode) }
        switch inode.kind {
        case .directory: return try handle(inode).header.directory
        case .regular:
            let content = try openContent(inode, forWriting: false)
            defer { closeContent(content) }
            return content.lock.reading { content.header.file }
        case .symbolicLink, .special: throw .invalid
        }
    }

    /// The zone that the contents of an inode belong to; of a directory, of its entries.
    package func zone(of inode: Inode) throws(Errno) -> ZoneID {
        inode.kind == .directory ? try handle(inode).zone : inode.zone
    }

    /// Among inodes, one by which a program would read: a regular file that is not empty, or else a directory.
    package func sample(_ inodes: [Inode]) -> (path: [UInt8], isDirectory: Bool)? {
        var directory: [UInt8]?
        for inode in inodes {
            switch inode.kind {
            case .regular:
                if table.holds(inode), let attributes = try? attributes(inode), attributes.st_size > 0,
                    let path = path(of: inode)
                {
                    return (path, false)
                }
            case .directory:
                if directory == nil { directory = path(of: inode) }
            case .symbolicLink, .special: break
            }
        }
        return directory.map { ($0, true) }
    }
}
