import CFuse
import CLinux
import Storage
import VolumeEngine

/// The engine behind the kernel's requests: node ids, timeouts and the tables of callbacks.
///
/// Node ids are the inodes' numbers, which stay theirs until the kernel has forgotten them; the root is 1.
final class FileSystem: Sendable {
    /// The lower directory is ours alone, so what the kernel knows stays true until it, or a revocation, says otherwise.
    static let timeoutSeconds: Double = 86_400

    let volume: Volume

    init(volume: Volume) { self.volume = volume }

    @inline(__always)
    func inode(_ id: fuse_ino_t) -> Inode {
        volume.inode(node: id)
    }

    @inline(__always)
    func nodeID(_ inode: Inode) -> fuse_ino_t {
        fuse_ino_t(inode.node)
    }

    /// How long the kernel may believe a node's attributes. Of a zone that is not open not at all: while it believes them it takes whole pages
    /// into its cache without asking, and these could not be stored.
    func attributeTimeout(_ inode: Inode) -> Double { volume.isOpen(inode) ? Self.timeoutSeconds : 0 }

    func parameters(_ entry: Entry) -> fuse_entry_param {
        var parameters = fuse_entry_param()
        parameters.ino = nodeID(entry.inode)
        parameters.generation = entry.inode.generation
        parameters.attr = entry.attributes
        parameters.attr_timeout = attributeTimeout(entry.inode)
        parameters.entry_timeout = Self.timeoutSeconds
        return parameters
    }

    /// An entry that is known not to be there.
    static var negative: fuse_entry_param {
        var parameters = fuse_entry_param()
        parameters.entry_timeout = timeoutSeconds
        return parameters
    }
}

/// The file system that a request belongs to.
@inline(__always)
func fileSystem(_ request: fuse_req_t) -> FileSystem {
    guard let pointer = fuse_req_userdata(request) else { preconditionFailure("no file system") }
    return Unmanaged<FileSystem>.fromOpaque(pointer).takeUnretainedValue()
}

/// The bytes of a C string without its NUL.
@inline(__always)
func bytes(_ name: UnsafePointer<CChar>?) -> UnsafeRawBufferPointer {
    guard let name else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    return UnsafeRawBufferPointer(start: name, count: strlen(name))
}

extension Credentials {
    init(_ context: fuse_ctx) { self.init(uid: context.uid, gid: context.gid) }
}

/// An object that `fh` carries, retained from open to release.
enum Handle {
    static func pass(_ object: some AnyObject) -> UInt64 {
        UInt64(UInt(bitPattern: Unmanaged.passRetained(object).toOpaque()))
    }

    @inline(__always)
    static func object<T: AnyObject>(_ raw: UInt64, as _: T.Type = T.self) -> T {
        guard let pointer = UnsafeRawPointer(bitPattern: UInt(raw)) else { preconditionFailure("no handle") }
        return Unmanaged<T>.fromOpaque(pointer).takeUnretainedValue()
    }

    static func take<T: AnyObject>(_ raw: UInt64, as _: T.Type = T.self) -> T {
        guard let pointer = UnsafeRawPointer(bitPattern: UInt(raw)) else { preconditionFailure("no handle") }
        return Unmanaged<T>.fromOpaque(pointer).takeRetainedValue()
    }
}
