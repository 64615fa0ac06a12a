import CLinux
import Ciphers
import KeyManagement
import Storage
import VolumeFormat

extension Volume {
    /// The handle of a directory: cached, or opened by its parent and name.
    func handle(_ inode: Inode) throws(Errno) -> DirectoryHandle {
        let cached = inode.state.withLock { state in
            state.recentlyUsed = true
            return state.handle
        }
        if let cached {
            // The gate of revocation: keys that are cached are not keys that may be used.
            _ = try storingKeys(cached.zone)
            return cached
        }
        guard inode.kind == .directory else { throw .notDirectory }
        // From the nearest ancestor at hand downwards, in a loop: a program may nest directories deeper than a stack goes.
        var missing: [Inode] = []
        var next = parent(of: inode)
        while let ancestor = next, ancestor.state.withLock({ $0.handle == nil }) {
            missing.append(ancestor)
            guard missing.count <= Self.maximumDepth else { throw .loop }
            next = parent(of: ancestor)
        }
        while let ancestor = missing.popLast() { _ = try loadHandle(ancestor) }
        return try loadHandle(inode)
    }

    /// The handle of a directory for a program's operation.
    func admitted(_ inode: Inode) throws(Errno) -> DirectoryHandle {
        let handle = try handle(inode)
        _ = try keys(handle.zone)
        return handle
    }

    /// Lets a program's operation on an inode pass, or says why not.
    func admit(_ inode: Inode) throws(Errno) {
        _ = try keys(inode.zone)
        // One that is gone has no header any more.
        if inode.kind == .directory, !isRemoved(inode) { _ = try admitted(inode) }
    }

    /// Deeper trees are refused with ELOOP, so that a cycle that somebody made on the lower storage ends.
    static let maximumDepth = 1 << 17

    private func parent(of inode: Inode) -> Inode? {
        inode.state.withLock { $0.pinned == nil ? $0.location?.parent : nil }
    }

    /// True when `inode` is `directory`, or lies above it.
    func isAncestor(_ inode: Inode, of directory: Inode) -> Bool {
        var next: Inode? = directory
        var steps = 0
        while let current = next, steps <= Self.maximumDepth {
            if current === inode { return true }
            next = current.state.withLock { $0.location?.parent }
            steps += 1
        }
        return steps > Self.maximumDepth
    }

    private func loadHandle(_ inode: Inode) throws(Errno) -> DirectoryHandle {
        let descriptor = try open(inode, flags: Int32(LINUX_O_PATH) | O_DIRECTORY)
        // As often as a header takes the place of the one that is being read.
        while true {
            let changes = inode.state.withLock { $0.headerChanges }
            let handle = try readDirectoryHeader(descriptor, inode)
            if hasPlaces { try verifyPlace(of: inode, handle.header.directory, LowerNode(descriptor)) }
            let kept = inode.state.withLock { state -> DirectoryHandle? in
                guard state.headerChanges == changes else { return nil }
                if let other = state.handle { return other }
                state.handle = handle
                return handle
            }
            guard let kept else { continue }
            if kept === handle { handles.added(inode) }
            // A revocation may have taken the handles between the keys' reading and now; it does not come again.
            do throws(Errno) { _ = try storingKeys(kept.zone) } catch {
                inode.state.withLock { if $0.handle === kept { $0.handle = nil } }
                throw error
            }
            return kept
        }
    }

    /// Opens an inode by where it was last seen; ESTALE when it is no longer there.
    ///
    /// A rename may move it between the look at its location and the open, so what was opened is compared with what was
    /// meant, and a new location is tried.
    func open(_ inode: Inode, flags: Int32) throws(Errno) -> Descriptor {
        try openSeen(inode, flags: flags).descriptor
    }

    /// The same, with the attributes that were compared, where it took some.
    func openSeen(_ inode: Inode, flags: Int32) throws(Errno) -> (descriptor: Descriptor, attributes: stat?) {
        var last: [CChar] = []
        for _ in 0..<16 {
            let (location, pinned) = inode.state.withLock { ($0.location, $0.pinned) }
            if let pinned { return (try reopen(pinned, flags: flags), nil) }
            guard let location else { return (try openRoot(inode, flags: flags), nil) }
            let parent = try handle(location.parent)
            do {
                let descriptor = try LowerPlace(volume: self, directory: parent.descriptor)
                    .open(location.name, flags: flags)
                let attributes = try Lower.stat(descriptor)
                if InodeKey(attributes) == inode.key { return (descriptor, attributes) }
            } catch {
                guard error == .noEntry || error == .notDirectory || error == .loop else { throw error }
            }
            if location.name == last { sched_yield() }
            last = location.name
        }
        if let content = inode.state.withLock({ $0.content }) {
            return (try reopen(content.lock.reading { content.descriptor }, flags: flags), nil)
        }
        throw .stale
    }

    private func openRoot(_ inode: Inode, flags: Int32) throws(Errno) -> Descriptor {
        guard inode === rootInode else { throw .stale }
        return try Lower.open(lowerRoot, ".", flags: flags)
    }

    private func reopen(_ pinned: Descriptor, flags: Int32) throws(Errno) -> Descriptor {
        if flags & Int32(LINUX_O_PATH) != 0 { return pinned }
        return try Lower.open(path: pinned.procPath, flags: flags)
    }

    /// Reads and authenticates `lethefs.dir`.
    private func readDirectoryHeader(_ descriptor: Descriptor, _ inode: Inode) throws(Errno) -> DirectoryHandle {
        let (header, keys) = try directoryHeader(
            descriptor, inode.number, isRoot: inode === rootInode, isGone: { isRemoved(inode) })
        return try DirectoryHandle(descriptor: descriptor, number: inode.number, header: header, keys: keys)
    }

    /// `lethefs.dir` as it is stored.
    func headerText(_ directory: Descriptor) throws(Errno) -> [UInt8] {
        try againstMode(directory) { () throws(Errno) in try Lower.readLink(directory, ReservedName.directoryHeader) }
    }

    /// The header of a lower directory, authenticated, and the keys of its current slot. Where there is none, `isGone` tells whether the
    /// directory was removed meanwhile: ENOENT then.
    func directoryHeader(
        _ descriptor: Descriptor, _ number: UInt64, isRoot: Bool, isGone: () -> Bool
    ) throws(Errno) -> (DirectoryHeader, DirectoryKeys) {
        let text: [UInt8]
        do throws(Errno) { text = try headerText(descriptor) } catch {
            guard error == .noEntry || error == .invalid else { throw error }
            if isGone() { throw .noEntry }
            throw damaged(.directoryHeader, number, "missing")
        }
        guard let bytes = Base64URL.decode(text) else {
            throw damaged(.directoryHeader, number, "not base64url")
        }
        let parsed = Result { () throws(FormatError) in
            try bytes.withUnsafeBufferPointer { (buffer) throws(FormatError) in
                try DirectoryHeader(parsing: UnsafeRawBufferPointer(buffer))
            }
        }
        guard case .success(let header) = parsed else {
            throw damaged(.directoryHeader, number, "\(parsed.failureDescription)")
        }
        guard header.volume == description.volume, !isRoot || header.directory == description.rootDirectory
        else { throw damaged(.directoryHeader, number, "of another volume or directory") }
        // Not authenticated yet: a zone that is not there is a changed header, not a missing key.
        guard hasZone(header.zone) else { throw damaged(.directoryHeader, number, "of an unknown zone") }
        return (header, try directoryKeys(header, bytes, number))
    }

    private func directoryKeys(_ header: DirectoryHeader, _ bytes: [UInt8], _ number: UInt64) throws(Errno)
        -> DirectoryKeys
    {
        let keys = try directoryKeys(of: header, number)
        do {
            let code = try HMACSHA256.code(key: keys.headerMAC, message: header.authenticatedBytes)
            guard HMACSHA256.isEqual(code, Array(bytes.suffix(DirectoryHeader.macSize))) else {
                throw damaged(.directoryHeader, number, "not authentic")
            }
            return keys
        } catch let error as Errno {
            throw error
        } catch {
            throw damaged(.directoryHeader, number, "\(error)")
        }
    }

    /// The keys of the current slot of a header, which the caller has authenticated, or does.
    func directoryKeys(of header: DirectoryHeader, _ number: UInt64) throws(Errno) -> DirectoryKeys {
        let zoneKeys = try storingKeys(header.zone)
        let slot = header.slots[header.currentIndex]
        do {
            let dek = try zoneKeys.unwrap(slot)
            return try DirectoryKeys(
                version: slot.version, dek: dek, directory: header.directory, hasPlaces: hasPlaces)
        } catch { throw damaged(.directoryHeader, number, "\(error)") }
    }

    /// Encodes and authenticates a directory's header: the text of its symbolic link, with a NUL.
    static func encodedHeader(_ header: DirectoryHeader, keys: DirectoryKeys) throws(Errno) -> [CChar] {
        let body = header.authenticatedBytes
        let code: [UInt8]
        do { code = try HMACSHA256.code(key: keys.headerMAC, message: body) } catch { throw .io }
        return Base64URL.encode(body + code).map(CChar.init(bitPattern:)) + [0]
    }

    /// A header and its keys for a new directory in `zone`.
    static func makeDirectoryHeader(
        volume: UniqueID, keys: ZoneKeys, now: UInt64
    ) throws(Errno) -> (header: DirectoryHeader, keys: DirectoryKeys) {
        let id = try randomID()
        do {
            let (slot, dek) = try keys.makeSlot(version: .first, now: now)
            let header = DirectoryHeader(volume: volume, directory: id, zone: keys.zone, generation: 1, slots: [slot])
            return (header, try DirectoryKeys(version: slot.version, dek: dek.key, directory: id))
        } catch { throw .io }
    }
}

extension Result {
    var failureDescription: String {
        if case .failure(let error) = self { return "\(error)" }
        return ""
    }
}
