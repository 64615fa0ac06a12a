import CLinux
import Ciphers
import KeyManagement
import Storage
import VolumeFormat

/// Sealing a link with several names anew: a successor is made in `.lethefs/links`, under a name that the old link's text gives, and each
/// of the old names is exchanged for a hard link of it. After a crash whoever goes on finds the same successor, so that the names
/// stay names of one link. It goes when nothing is left under an older key.
extension Volume {
    private static func successors(_ zone: ZoneID) -> String { "again.\(zone.rawValue)." }

    /// Where the successor of a link with that lower text is, if there is one. The text has an IV in it: no two links have the same.
    private func successorName(_ text: [UInt8], _ zone: ZoneID) throws(Errno) -> String {
        do {
            let digest = try SHA256.digest(text)
            let name = String(decoding: Base64URL.encode(Array(digest.prefix(16))), as: UTF8.self)
            return "links/" + Self.successors(zone) + name
        } catch { throw .io }
    }

    func hasSuccessor(_ text: [UInt8], _ zone: ZoneID) throws(Errno) -> Bool {
        do throws(Errno) {
            _ = try Lower.stat(volumeDirectory, try successorName(text, zone))
            return true
        } catch {
            guard error == .noEntry else { throw error }
            return false
        }
    }

    /// The successor of a link, sealed by the newest metadata key; made, if there is none. Its path below `.lethefs`.
    private func successor(_ inode: Inode, _ text: [UInt8]) throws(Errno) -> String {
        let name = try successorName(text, inode.zone)
        guard let newest = try storingKeys(inode.zone).currentMetadata?.version else { throw .io }
        if try hasSuccessor(text, inode.zone) {
            let old = try Lower.readLink(volumeDirectory, name)
            if try sealedTarget(old, inode).keyVersion == newest { return name }
            // An interrupted sweep's, and another metadata key came since: that one has a successor itself.
            let next = try hasSuccessor(old, inode.zone) ? try successorName(old, inode.zone) : name + ".new"
            if !next.hasSuffix(".new") {
                do throws(Errno) { try Lower.unlink(volumeDirectory, name + ".new") } catch {
                    guard error == .noEntry else { throw error }
                }
                try Lower.link(volumeDirectory, next, volumeDirectory, name + ".new")
                try Lower.rename(volumeDirectory, name + ".new", volumeDirectory, name)
                return try successor(inode, text)
            }
            try make(name + ".new", of: inode)
            try Lower.link(volumeDirectory, name + ".new", volumeDirectory, try successorName(old, inode.zone))
            try Lower.rename(volumeDirectory, name + ".new", volumeDirectory, name)
            return name
        }
        try make(name + ".new", of: inode)
        try Lower.rename(volumeDirectory, name + ".new", volumeDirectory, name)
        return name
    }

    /// A lower link with target, owner, attributes and times of `inode`, sealed by the newest metadata key.
    private func make(_ path: String, of inode: Inode) throws(Errno) {
        // What an interrupted sweep left half made.
        do throws(Errno) {
            removeLinkTail(Self.tailID(try Lower.readLink(volumeDirectory, path)))
            try Lower.unlink(volumeDirectory, path)
        } catch {
            guard error == .noEntry else { throw error }
        }
        let info = try Lower.stat(try open(inode, flags: Int32(LINUX_O_PATH)))
        let target = try readLink(inode)
        let stored = try target.withUnsafeBufferPointer { (target) throws(Errno) in
            try sealLink(UnsafeRawBufferPointer(target), zone: inode.zone)
        }
        try Lower.symlink(target: stored.text, volumeDirectory, path)
        if isPrivileged { try Lower.changeOwner(volumeDirectory, path, uid: info.st_uid, gid: info.st_gid) }
        let made = try Lower.open(volumeDirectory, path, flags: Int32(LINUX_O_PATH))
        try copySealedAttributes(of: inode, to: made, inode.zone)
        try Lower.changeTimes(made, access: info.st_atim, modification: info.st_mtim)
    }

    /// Exchanges each name of a link for one of its successor. A name that is another's by now is left alone: whoever moved it
    /// has it visited again.
    func resealLinked(_ group: LinkedNames.Group) throws(Errno) {
        try withAttributesFixed(group.inode) { () throws(Errno) in try exchange(group) }
    }

    private func exchange(_ group: LinkedNames.Group) throws(Errno) {
        let inode = group.inode
        let text = try Lower.readLink(try open(inode, flags: Int32(LINUX_O_PATH)), "")
        let successor = try successor(inode, text)
        for name in group.names {
            let place = LowerPlace(volume: self, directory: try handle(name.directory).descriptor)
            guard let info = try? place.stat(name.name), InodeKey(info) == inode.key else { continue }
            let temporary = try Self.temporaryName()
            try place.link(volumeDirectory, successor, to: temporary)
            let isLast: Bool
            do throws(Errno) {
                try place.exchange(temporary, name.name)
                let out = try place.stat(temporary)
                guard InodeKey(out) == inode.key else {
                    try place.exchange(temporary, name.name)
                    throw .stale
                }
                isLast = out.st_nlink == 1
            } catch {
                try? place.unlink(temporary)
                guard error == .stale || error == .noEntry else { throw error }
                continue
            }
            // As for a link with one name.
            if isLast { table.detach(inode) }
            try place.unlink(temporary)
            if isLast { removeLinkTail(Self.tailID(text)) }
        }
    }

    /// Nothing is under an older metadata key any more: the successors are names of their own right.
    func removeSuccessors(_ zone: ZoneID) throws(Errno) {
        let stream = try Lower.open(volumeDirectory, VolumeFiles.links, flags: O_RDONLY | O_DIRECTORY)
        let records = UnsafeMutableRawBufferPointer.allocate(byteCount: 32 << 10, alignment: 16)
        defer { records.deallocate() }
        var names: [String] = []
        while true {
            let used = try Lower.readDirectory(stream, into: records)
            if used == 0 { break }
            LowerEntry.forEach(UnsafeRawBufferPointer(rebasing: records[..<used])) { entry in
                let name = String(decoding: entry.name, as: UTF8.self)
                if name.hasPrefix(Self.successors(zone)) { names.append(name) }
                return true
            }
        }
        for name in names { try Lower.unlink(volumeDirectory, VolumeFiles.links + "/" + name) }
    }
}
