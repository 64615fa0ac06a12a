import CLinux
import Storage
import VolumeFormat

/// What `check` reads of an object's attributes: each one, also where others are damaged.
extension Volume {
    typealias Attributes = [(name: String, value: [UInt8])]

    /// All attributes that open; `failure` is what kept one of the others from it, and the damage was told.
    func readAttributes(_ inode: Inode) throws(Errno) -> (attributes: Attributes, failure: Errno?) {
        try admit(inode)
        let node = try open(inode, flags: Int32(LINUX_O_PATH))
        let lower = try Lower.listAttributes(path: node.procPath)
        var found: Attributes = []
        var failure: Errno?
        for name in lower.map({ String(decoding: $0, as: UTF8.self) }) where Self.isClear(name) {
            do throws(Errno) { found.append((name, try Lower.getAttribute(path: node.procPath, name))) } catch {
                if error != .noData { failure = failure ?? error }
            }
        }
        guard lower.contains(where: isOurs) else { return (found, failure) }
        // None is sealed anew, and so gets another lower name, in between.
        let sealed = try attributeGate(inode).lock.withLock { (_) throws(Errno) in
            try readSealedAttributes(inode, node)
        }
        try admit(inode)
        return (found + sealed.attributes, failure ?? sealed.failure)
    }

    private func readSealedAttributes(
        _ inode: Inode, _ node: Descriptor
    ) throws(Errno) -> (attributes: Attributes, failure: Errno?) {
        let sealed = try Lower.listAttributes(path: node.procPath).filter(isOurs)
            .map { String(decoding: $0, as: UTF8.self) }
        // A crash may leave one under an old key beside the same under the new one: the first key's is the one that programs see.
        var found: [String: (key: Int, value: [UInt8])] = [:]
        var failure: Errno?
        try withAttributeKeys(inode) { (keys) throws(Errno) in
            guard !keys.isEmpty else { return }
            for lowerName in sealed {
                do throws(Errno) {
                    let blob = try readSealed(node, lowerName)
                    let attribute = try openAttribute(blob, keys, inode, nil).plaintext
                    let name = String(decoding: attribute.name, as: UTF8.self)
                    guard let key = try index(of: lowerName, of: name, keys) else {
                        throw damaged(.attribute, inode.number, "under another one's name")
                    }
                    if key < found[name]?.key ?? .max { found[name] = (key, attribute.value) }
                } catch {
                    // Removed meanwhile.
                    if error != .noData { failure = failure ?? error }
                }
            }
        }
        return (found.map { ($0.key, $0.value.value) }, failure)
    }

    /// Which of the keys makes `lowerName` of an attribute's name.
    private func index(of lowerName: String, of name: String, _ keys: [AttributeKey]) throws(Errno) -> Int? {
        for (index, key) in keys.enumerated() where try key.lowerName(name) == lowerName { return index }
        return nil
    }
}
