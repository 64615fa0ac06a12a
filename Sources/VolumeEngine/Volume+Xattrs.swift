import CLinux
import Ciphers
import Secrets
import Storage
import VolumeFormat

/// Extended attributes. Names and values are sealed together under keys of the object's own; the lower name is an HMAC of the
/// name. POSIX ACLs stay as they are: the lower kernel enforces and inherits them.
extension Volume {
    /// ACLs: stored in clear under their own names.
    static func isClear(_ name: String) -> Bool {
        name == "system.posix_acl_access" || name == "system.posix_acl_default"
    }

    private static func isSealable(_ name: String) -> Bool {
        ["user.", "security.", "trusted."].contains { name.hasPrefix($0) && name.utf8.count > $0.utf8.count }
    }

    /// getxattr(2).
    package func getAttribute(_ inode: Inode, _ name: String) throws(Errno) -> [UInt8] {
        try admit(inode)
        let value = try attribute(inode, name)
        // The gate again: a revocation may have come while the lower storage took its time.
        try admit(inode)
        return value
    }

    private func attribute(_ inode: Inode, _ name: String) throws(Errno) -> [UInt8] {
        guard Self.isClear(name) || Self.isSealable(name) else { throw .notSupported }
        let (absent, mark) = inode.absentAttributes
        if absent.contains(.kind(of: name)) { throw .noData }
        let node = try open(inode, flags: Int32(LINUX_O_PATH))
        if Self.isClear(name) {
            do throws(Errno) { return try Lower.getAttribute(path: node.procPath, name) } catch {
                // A lower file system without ACLs: to the kernel “not supported” would be an error, and no access at all.
                guard error == .noData || error == .notSupported else { throw error }
                inode.noteAbsent(.kind(of: name), since: mark)
                throw .noData
            }
        }
        // Most files have none at all, and are asked often: then no key is needed to say so.
        guard try Lower.listAttributes(path: node.procPath).contains(where: isOurs) else {
            inode.noteAbsent(.sealed, since: mark)
            throw .noData
        }
        do throws(Errno) { return try sealedAttribute(inode, node, name) } catch {
            guard error == .noData else { throw error }
        }
        // It may have been sealed anew just now, from behind the keys tried to those tried before.
        return try attributeGate(inode).lock.withLock { (_) throws(Errno) in try sealedAttribute(inode, node, name) }
    }

    private func sealedAttribute(_ inode: Inode, _ node: Descriptor, _ name: String) throws(Errno) -> [UInt8] {
        try withAttributeKeys(inode) { (keys) throws(Errno) in
            for key in keys {
                do throws(Errno) {
                    let blob = try readSealed(node, try key.lowerName(name))
                    return try openAttribute(blob, keys, inode, name).plaintext.value
                } catch {
                    guard error == .noData else { throw error }
                }
            }
            throw .noData
        }
    }

    /// setxattr(2) with XATTR_CREATE, XATTR_REPLACE or neither.
    package func setAttribute(
        _ inode: Inode, _ name: String, _ value: UnsafeRawBufferPointer, flags: Int32
    ) throws(Errno) {
        try admit(inode)
        inode.attributesChange()
        defer { inode.attributesChange() }
        if Self.isClear(name) {
            let node = try open(inode, flags: Int32(LINUX_O_PATH))
            // It changes the mode.
            return try withOwnMode { () throws(Errno) in
                try Lower.setAttribute(path: node.procPath, name, value, flags: flags)
            }
        }
        guard Self.isSealable(name) else { throw .notSupported }
        guard name.utf8.count <= XattrPlaintext.maximumName else { throw .range }
        try keyUse.reading { () throws(Errno) in
            try attributeGate(inode).lock.withLock { (_) throws(Errno) in
                // Not before: another lower link may have taken its place (`resealLink`).
                let node = try open(inode, flags: Int32(LINUX_O_PATH))
                try setSealedAttribute(inode, node, name, value, flags: flags)
            }
        }
    }

    private func setSealedAttribute(
        _ inode: Inode, _ node: Descriptor, _ name: String, _ value: UnsafeRawBufferPointer, flags: Int32
    ) throws(Errno) {
        try withAttributeKeys(inode) { (keys) throws(Errno) in
            try setSealedAttribute(keys, node, name, value, flags: flags)
        }
    }

    /// By the first of `keys`; what stands under the others goes.
    private func setSealedAttribute(
        _ keys: [AttributeKey], _ node: Descriptor, _ name: String, _ value: UnsafeRawBufferPointer, flags: Int32
    ) throws(Errno) {
        guard let key = keys.first else { throw .io }
        var flags = flags
        if flags != 0, keys.count > 1 {
            // It may be there under another of the keys.
            let isThere = try hasAttribute(keys, node, name)
            if isThere, flags & Int32(XATTR_CREATE) != 0 { throw .exists }
            if !isThere, flags & Int32(XATTR_REPLACE) != 0 { throw .noData }
            flags = 0
        }
        let plaintext = XattrPlaintext(name: Array(name.utf8), value: Array(value)).encoded
        let blob = try plaintext.withUnsafeBufferPointer { (plaintext) throws(Errno) in
            try seal(UnsafeRawBufferPointer(plaintext), with: key)
        }
        let lowerName = try key.lowerName(name)
        try blob.encoded.withUnsafeBufferPointer { (bytes) throws(Errno) in
            try againstMode(node) { () throws(Errno) in
                try Lower.setAttribute(path: node.procPath, lowerName, UnsafeRawBufferPointer(bytes), flags: flags)
            }
        }
        for old in keys.dropFirst() {
            // One that stayed would be damage as soon as its key is gone.
            do throws(Errno) { try removeSealed(node, try old.lowerName(name)) } catch {
                guard error == .noData else { throw error }
            }
        }
    }

    private func hasAttribute(_ keys: [AttributeKey], _ node: Descriptor, _ name: String) throws(Errno) -> Bool {
        for key in keys {
            do throws(Errno) {
                _ = try readSealed(node, try key.lowerName(name))
                return true
            } catch { guard error == .noData else { throw error } }
        }
        return false
    }

    /// listxattr(2).
    package func listAttributes(_ inode: Inode) throws(Errno) -> [String] {
        try admit(inode)
        let node = try open(inode, flags: Int32(LINUX_O_PATH))
        let lower = try Lower.listAttributes(path: node.procPath)
        let names = lower.map { String(decoding: $0, as: UTF8.self) }.filter(Self.isClear)
        guard lower.contains(where: isOurs) else { return names }
        // None is sealed anew, and so gets another lower name, in between.
        let sealed = try attributeGate(inode).lock.withLock { (_) throws(Errno) in try sealedAttributes(inode, node) }
        try admit(inode)
        return names + sealed
    }

    private func sealedAttributes(_ inode: Inode, _ node: Descriptor) throws(Errno) -> [String] {
        let sealed = try Lower.listAttributes(path: node.procPath).filter(isOurs)
            .map { String(decoding: $0, as: UTF8.self) }
        var names: [String] = []
        try withAttributeKeys(inode) { (keys) throws(Errno) in
            guard !keys.isEmpty else { return }
            for name in sealed {
                do throws(Errno) {
                    let blob = try readSealed(node, name)
                    let plaintext = try openAttribute(blob, keys, inode, nil).plaintext
                    // A crash may leave one under an old key beside the same under the new one.
                    let plain = String(decoding: plaintext.name, as: UTF8.self)
                    if !names.contains(plain) { names.append(plain) }
                } catch {
                    guard error == .noData else { throw error }
                }
            }
        }
        return names
    }

    /// removexattr(2).
    package func removeAttribute(_ inode: Inode, _ name: String) throws(Errno) {
        try admit(inode)
        if Self.isClear(name) {
            let node = try open(inode, flags: Int32(LINUX_O_PATH))
            return try withOwnMode { () throws(Errno) in try Lower.removeAttribute(path: node.procPath, name) }
        }
        guard Self.isSealable(name) else { throw .notSupported }
        try attributeGate(inode).lock.withLock { (_) throws(Errno) in
            let node = try open(inode, flags: Int32(LINUX_O_PATH))
            try removeSealedAttribute(inode, node, name)
        }
    }

    private func removeSealedAttribute(_ inode: Inode, _ node: Descriptor, _ name: String) throws(Errno) {
        try withAttributeKeys(inode) { (keys) throws(Errno) in
            var removed = false
            for key in keys {
                do throws(Errno) {
                    try removeSealed(node, try key.lowerName(name))
                    removed = true
                } catch {
                    guard error == .noData else { throw error }
                }
            }
            if !removed { throw .noData }
        }
    }

    /// Seals an object's attributes by its current key, where they are under an older one. Returns how many were.
    func resealAttributes(_ inode: Inode) throws(Errno) -> Int {
        let node = try open(inode, flags: Int32(LINUX_O_PATH))
        return try attributeGate(inode).lock.withLock { (_) throws(Errno) in
            // Not before: one that a program is about to store would be missing.
            let sealed = try Lower.listAttributes(path: node.procPath).filter(isOurs)
            guard !sealed.isEmpty else { return 0 }
            return try withAttributeKeys(inode) { (keys) throws(Errno) in try reseal(sealed, node, keys, inode) }
        }
    }

    /// The same for an open file whose attribute gate and lock the caller holds.
    func resealAttributes(of content: FileContent) throws(Errno) {
        let sealed = try Lower.listAttributes(path: content.descriptor.procPath).filter(isOurs)
        guard !sealed.isEmpty else { return }
        let keys = Self.attributeKeys(content.keys, content.header)
        _ = try reseal(sealed, content.descriptor, keys, content.inode)
    }

    private func reseal(
        _ sealed: [[UInt8]], _ node: Descriptor, _ keys: [AttributeKey], _ inode: Inode
    ) throws(Errno) -> Int {
        var stale: [(lowerName: String, XattrPlaintext)] = []
        for name in sealed.map({ String(decoding: $0, as: UTF8.self) }) {
            do throws(Errno) {
                let bytes = try readSealed(node, name)
                let version = bytes.withUnsafeBytes { try? SealedBlob(parsing: $0).keyVersion }
                // Keys of two zones may have the same version.
                let isUnique = keys.count(where: { $0.version == version }) == 1
                if isUnique, version == keys.first?.version { continue }
                let opened = try openAttribute(bytes, keys, inode, nil)
                if opened.key > 0 { stale.append((name, opened.plaintext)) }
            } catch { guard error == .noData else { throw error } }
        }
        for (lowerName, attribute) in stale {
            let name = String(decoding: attribute.name, as: UTF8.self)
            // One under the current key is newer: a crash, or a failure, left the old one beside it.
            if let current = keys.first, sealed.contains(Array(try current.lowerName(name).utf8)) {
                try removeSealed(node, lowerName)
                continue
            }
            try attribute.value.withUnsafeBufferPointer { (value) throws(Errno) in
                try setSealedAttribute(keys, node, name, UnsafeRawBufferPointer(value), flags: 0)
            }
        }
        return stale.count
    }

    /// The version of the metadata key of `zone` that seals an attribute of a link or special file; `nil` if another zone's does.
    func metadataVersion(_ bytes: [UInt8], _ inode: Inode, in zone: ZoneID) throws(Errno) -> KeyVersion? {
        var result: KeyVersion?
        let own = try keys(zone).allMetadata.count
        try withAttributeKeys(inode) { (keys) throws(Errno) in
            let opened = try openAttribute(bytes, keys, inode, nil)
            // Those of the directory's zone come first, then the others'.
            let zones = try metadataZones(inode)
            let isFirst = zones.first == zone
            let isOwn = zones.count == 1 ? isFirst : isFirst ? opened.key < own : opened.key >= keys.count - own
            if isOwn { result = keys[opened.key].version }
        }
        return result
    }

    /// Gives a lower link an attribute, sealed by the newest metadata key.
    private func setMetadataAttribute(
        _ node: Descriptor, zone: ZoneID, _ name: String, _ value: UnsafeRawBufferPointer
    ) throws(Errno) {
        guard let metadata = try storingKeys(zone).currentMetadata else { throw .io }
        let key = AttributeKey(owner: .other(metadata))
        let plaintext = XattrPlaintext(name: Array(name.utf8), value: Array(value)).encoded
        let blob = try plaintext.withUnsafeBufferPointer { (plaintext) throws(Errno) in
            try seal(UnsafeRawBufferPointer(plaintext), with: key)
        }
        let lowerName = try key.lowerName(name)
        try blob.encoded.withUnsafeBufferPointer { (bytes) throws(Errno) in
            try Lower.setAttribute(path: node.procPath, lowerName, UnsafeRawBufferPointer(bytes), flags: 0)
        }
    }

    /// Gives a lower link, that is about to take the place of `inode`, its attributes. The caller holds the attribute gate.
    func copySealedAttributes(of inode: Inode, to made: Descriptor, _ zone: ZoneID) throws(Errno) {
        let node = try open(inode, flags: Int32(LINUX_O_PATH))
        for name in try sealedAttributes(inode, node) {
            let value = try sealedAttribute(inode, node, name)
            try value.withUnsafeBufferPointer { (value) throws(Errno) in
                try setMetadataAttribute(made, zone: zone, name, UnsafeRawBufferPointer(value))
            }
        }
    }

    /// Those of a file whose header a crash took: nobody has the DEK that sealed them.
    func removeLostAttributes(_ descriptor: Descriptor) throws(Errno) {
        for name in try Lower.listAttributes(path: descriptor.procPath).filter(isOurs) {
            try removeSealed(descriptor, String(decoding: name, as: UTF8.self))
        }
    }

    /// By its lower name. The kernel looks at the file's mode, not at the descriptor.
    func readSealed(_ node: Descriptor, _ name: String) throws(Errno) -> [UInt8] {
        try againstMode(node) { () throws(Errno) in try Lower.getAttribute(path: node.procPath, name) }
    }

    private func removeSealed(_ node: Descriptor, _ name: String) throws(Errno) {
        try againstMode(node) { () throws(Errno) in try Lower.removeAttribute(path: node.procPath, name) }
    }

    /// True when an object has attributes of ours.
    func hasSealedAttributes(_ descriptor: Descriptor) throws(Errno) -> Bool {
        try Lower.listAttributes(path: descriptor.procPath).contains(where: isOurs)
    }

    /// A program's, sealed. What an object says of its names (FORMAT §13) is none.
    func isOurs(_ lowerName: [UInt8]) -> Bool {
        if hasPlaces, lowerName.elementsEqual(PlaceList.attribute.utf8) { return false }
        return String(decoding: lowerName, as: UTF8.self).hasPrefix(AttributeKey.userPrefix)
            || String(decoding: lowerName, as: UTF8.self).hasPrefix(AttributeKey.trustedPrefix)
    }

    private func seal(_ plaintext: UnsafeRawBufferPointer, with key: AttributeKey) throws(Errno) -> SealedBlob {
        switch key.owner {
        case .file(let keys, _): try seal(plaintext, under: keys.xattrValues, version: key.version, aad: key.aad)
        case .directory(let handle):
            try seal(plaintext, under: handle.keys.xattrValues, version: key.version, aad: key.aad)
        case .other(let keys): try seal(plaintext, under: keys.xattrValues, version: key.version, aad: key.aad)
        }
    }

    /// The attribute, and which of the keys opened it.
    func openAttribute(
        _ bytes: [UInt8], _ keys: [AttributeKey], _ inode: Inode, _ name: String?
    ) throws(Errno) -> (plaintext: XattrPlaintext, key: Int) {
        guard let blob = bytes.withUnsafeBytes({ try? SealedBlob(parsing: $0) }),
            keys.contains(where: { $0.version == blob.keyVersion })
        else { throw damaged(.attribute, inode.number, "malformed") }
        for (index, key) in keys.enumerated() where key.version == blob.keyVersion {
            if let plaintext = try open(blob, with: key), let value = try? XattrPlaintext(parsing: plaintext),
                name == nil || value.name == Array((name ?? "").utf8)
            {
                return (value, index)
            }
        }
        throw damaged(.attribute, inode.number, "not authentic")
    }

    private func open(_ blob: SealedBlob, with key: AttributeKey) throws(Errno) -> [UInt8]? {
        switch key.owner {
        case .file(let keys, _): try open(blob, under: keys.xattrValues, aad: key.aad)
        case .directory(let handle): try open(blob, under: handle.keys.xattrValues, aad: key.aad)
        case .other(let keys): try open(blob, under: keys.xattrValues, aad: key.aad)
        }
    }

    /// Runs `body` with the keys of an object's attributes, the current version first.
    func withAttributeKeys<R>(_ inode: Inode, _ body: ([AttributeKey]) throws(Errno) -> R) throws(Errno) -> R {
        switch inode.kind {
        case .regular:
            let content = try openContent(inode, forWriting: false)
            defer { closeContent(content) }
            try content.storeFirstHeader()
            try content.ensureKeys()
            let keys = try content.lock.reading { () throws(Errno) in
                // Where it could not be stored: no attribute that there is was sealed by these.
                guard content.stage != .unwritten else { return [AttributeKey]() }
                try content.requireKeys()
                return Self.attributeKeys(content.keys, content.header)
            }
            return try body(keys)
        case .directory:
            return try body([AttributeKey(owner: .directory(try handle(inode)))])
        case .symbolicLink, .special:
            let zones = transitions.isEmpty ? [inode.zone] : try metadataZones(inode)
            var owners: [AttributeKey] = []
            for zone in zones { owners += try keys(zone).allMetadata.map { AttributeKey(owner: .other($0)) } }
            return try body(owners)
        }
    }

    /// Of a file, the current one first.
    private static func attributeKeys(_ keys: [FileKeys], _ header: FileHeader) -> [AttributeKey] {
        let current = keys[header.currentIndex]
        let ordered = [current] + keys.filter { $0.version != current.version }.reversed()
        return ordered.map { AttributeKey(owner: .file($0, header.file)) }
    }
}
