import CLinux
import Storage
import Synchronization
import VolumeFormat

/// A lower directory on a sweep's way, with its header as it is on the lower storage now.
///
/// It keeps its parent, so that a path can be told; the descriptors that are open at a time are as many as the tree is deep. It keeps no
/// keys: a sweep may be paused for days, and a revocation would not find them.
final class SweepDirectory: Sendable {
    /// Readable: the sweep lists it.
    let descriptor: Descriptor
    let key: InodeKey
    let header: DirectoryHeader
    let parent: SweepDirectory?
    /// Stored name in the parent, with its NUL; empty for the root and for one that was found by its inode.
    let name: [CChar]
    private let volume: Volume
    // One reference, given back at the end.
    private let known = Mutex<Inode?>(nil)

    init(
        _ volume: Volume, descriptor: Descriptor, key: InodeKey, header: DirectoryHeader, parent: SweepDirectory?,
        name: [CChar], inode: Inode? = nil
    ) {
        self.volume = volume
        self.descriptor = descriptor
        self.key = key
        self.header = header
        self.parent = parent
        self.name = name
        if let inode {
            volume.table.retain(inode)
            known.withLock { $0 = inode }
        }
    }

    var zone: ZoneID { header.zone }

    /// Unwrapped anew each time; the error of its zone where that is closed.
    func keys() throws(Errno) -> DirectoryKeys { try volume.directoryKeys(of: header, key.number) }

    /// The inode object of this directory; ESTALE when it is no longer where it was.
    func inode() throws(Errno) -> Inode {
        if let inode = known.withLock({ $0 }) { return inode }
        guard let parent else { return volume.rootInode }
        let above = try parent.inode()
        let inode = try volume.sweptInode(parent, above, name)
        guard inode.key == key else {
            volume.table.release(inode)
            throw .stale
        }
        let other = known.withLock { known in
            guard let kept = known else {
                known = inode
                return inode
            }
            return kept
        }
        if other !== inode { volume.table.release(inode) }
        return other
    }

    /// The plaintext path, for reports; a name that is not one is shown as it is stored.
    func path(_ entry: [CChar]? = nil) -> String {
        var parts: [String] = []
        if let entry { parts.append(plainName(entry)) }
        var next: SweepDirectory? = self
        while let current = next, let above = current.parent, parts.count < 4096 {
            parts.append(above.plainName(current.name))
            next = above
        }
        return "/" + parts.reversed().joined(separator: "/")
    }

    private func plainName(_ stored: [CChar]) -> String {
        let fallback = String(decoding: stored.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        guard let keys = try? keys(),
            let handle = try? DirectoryHandle(descriptor: descriptor, number: key.number, header: header, keys: keys)
        else { return fallback }
        return withUnsafeTemporaryAllocation(byteCount: 320, alignment: 16) { output in
            stored.withUnsafeBytes { stored in
                let bare = UnsafeRawBufferPointer(rebasing: stored.dropLast())
                guard case .name(let count) = handle.decode(bare, into: output) else { return fallback }
                return String(decoding: output[..<count], as: UTF8.self)
            }
        }
    }

    /// For its entries.
    var place: LowerPlace { LowerPlace(volume: volume, directory: descriptor) }

    deinit {
        if let inode = known.withLock({ $0 }) { volume.table.release(inode) }
    }
}

extension Volume {
    /// The inode object of an entry that a sweep came to, with one more reference. Unlike a lookup it leaves the location of a known
    /// one alone: programs may be renaming it just now.
    func sweptInode(_ directory: SweepDirectory, _ inode: Inode, _ name: [CChar]) throws(Errno) -> Inode {
        let info = try directory.place.stat(name)
        return table.acquire(InodeKey(info)) { identity in
            table.retain(inode)
            return Inode(
                key: InodeKey(info), kind: Inode.Kind(mode: info.st_mode), zone: directory.zone, identity: identity,
                location: Inode.Location(parent: inode, name: name))
        }.inode
    }

    /// Of an entry whose inode object leads nowhere: has it look where the sweep came to it. False where the name leads to something else
    /// by now: what moves comes again.
    func findAgain(_ entry: SweepEntry) throws(Errno) -> Bool {
        guard case .named(let directory, let name) = entry else { return false }
        let key = InodeKey(try directory.place.stat(name))
        guard let inode = table.find(key) else { return false }
        defer { table.release(inode) }
        let parent = try directory.inode()
        name.withUnsafeBufferPointer { name in
            if let name = name.baseAddress { relocate(inode, to: parent, name) }
        }
        return true
    }

    /// Opens a directory for a sweep by its name in another, or the root.
    func sweptDirectory(_ parent: SweepDirectory?, _ name: [CChar]) throws(Errno) -> SweepDirectory {
        let descriptor: Descriptor
        if let parent {
            descriptor = try parent.place.openDirectory(name)
        } else {
            descriptor = try Lower.open(lowerRoot, ".", flags: O_RDONLY | O_DIRECTORY)
        }
        let key = InodeKey(try Lower.stat(descriptor))
        let (header, _) = try directoryHeader(descriptor, key.number, isRoot: parent == nil) {
            guard let parent else { return false }
            return (try? parent.place.stat(name)).map { InodeKey($0) != key } ?? true
        }
        return SweepDirectory(self, descriptor: descriptor, key: key, header: header, parent: parent, name: name)
    }

    /// The zone that a directory's header says, which nothing vouches for: its keys are not here. `nil` for one that is no header.
    func storedZone(_ parent: SweepDirectory, _ name: [CChar]) throws(Errno) -> ZoneID? {
        let descriptor = try parent.place.open(name, flags: Int32(LINUX_O_PATH) | O_DIRECTORY)
        guard let bytes = Base64URL.decode(try headerText(descriptor)) else {
            return nil
        }
        return bytes.withUnsafeBytes { try? DirectoryHeader(parsing: $0) }?.zone
    }

    /// Opens a directory for a sweep by its inode object: it was moved while the tree was walked.
    func sweptDirectory(_ inode: Inode) throws(Errno) -> SweepDirectory {
        let descriptor = try openListable(inode)
        let (header, _) = try directoryHeader(
            descriptor, inode.number, isRoot: inode === rootInode, isGone: { isRemoved(inode) })
        return SweepDirectory(
            self, descriptor: descriptor, key: inode.key, header: header, parent: nil, name: [], inode: inode)
    }
}
