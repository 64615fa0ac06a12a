import CLinux
import Ciphers
import KeyManagement
import Storage
import VolumeFormat

extension Volume {
    /// The stored form of a link target: the lower link's text, and the name and text of its tail if it is split.
    struct StoredLink {
        /// NUL-terminated.
        var text: [CChar]
        /// Id of the tail in `.lethefs/links`.
        var tail: String?
    }

    /// Seals a target under the zone's newest metadata key.
    func sealLink(_ target: UnsafeRawBufferPointer, zone: ZoneID) throws(Errno) -> StoredLink {
        guard target.count > 0 else { throw .noEntry }
        guard target.count <= LinkEncoding.maximumTarget else { throw .nameTooLong }
        guard let metadata = try keys(zone).currentMetadata else { throw .io }
        let aad = SealedBlob.linkAAD(volume: description.volume, zone: zone)
        let blob = try seal(target, under: metadata.links, version: metadata.version, aad: aad)
        let text = Base64URL.encode(blob.encoded)
        guard LinkEncoding.isSplit(plainCount: target.count) else {
            return StoredLink(text: text.map(CChar.init(bitPattern:)) + [0], tail: nil)
        }
        let id = try Self.randomID()
        let name = Base64URL.encode(withUnsafeBytes(of: (id.high, id.low)) { [UInt8]($0) })
        let head = [LinkEncoding.splitMark] + name + text[..<LinkEncoding.headCount]
        let tail = text[LinkEncoding.headCount...].map(CChar.init(bitPattern:)) + [0]
        let tailName = String(decoding: name, as: UTF8.self)
        try Lower.symlink(target: tail, volumeDirectory, "links/" + tailName)
        return StoredLink(text: head.map(CChar.init(bitPattern:)) + [0], tail: tailName)
    }

    func removeLinkTail(_ tail: String?) {
        guard let tail else { return }
        try? Lower.unlink(volumeDirectory, "links/" + tail)
    }

    /// The id of the tail that a lower target names, if it is split.
    static func tailID(_ lower: [UInt8]) -> String? {
        guard lower.first == LinkEncoding.splitMark, lower.count == LinkEncoding.maximumTarget else { return nil }
        let id = lower[1...LinkEncoding.idCount]
        guard Base64URL.decode(Array(id)) != nil else { return nil }
        return String(decoding: id, as: UTF8.self)
    }

    private func sealedTarget(_ inode: Inode) throws(Errno) -> SealedBlob {
        try sealedTarget(try lowerLink(inode), inode)
    }

    /// Of a lower link with the text `lower`; `inode` is for reports.
    func sealedTarget(_ lower: [UInt8], _ inode: Inode) throws(Errno) -> SealedBlob {
        let text = try wholeLinkText(lower, inode)
        let parsed = Base64URL.decode(text).flatMap { bytes in
            bytes.withUnsafeBytes { try? SealedBlob(parsing: $0) }
        }
        guard let blob = parsed else { throw damaged(.linkTarget, inode.number, "malformed") }
        return blob
    }

    /// The metadata key that seals a link's target.
    func linkKeyVersion(_ inode: Inode) throws(Errno) -> KeyVersion { try sealedTarget(inode).keyVersion }

    /// readlink(2).
    package func readLink(_ inode: Inode) throws(Errno) -> [UInt8] {
        let blob = try sealedTarget(inode)
        let zone = inode.zone
        let metadata = try keys(zone).metadata(blob.keyVersion)
        var target: [UInt8]?
        if let metadata { target = try openTarget(blob, metadata, zone) }
        if target == nil { target = try openElsewhere(blob, inode, not: zone) }
        // The gate again: a revocation may have come meanwhile.
        try admit(inode)
        if let target { return target }
        throw damaged(.linkTarget, inode.number, metadata == nil ? "unknown key version" : "not authentic")
    }

    private func openTarget(
        _ blob: SealedBlob, _ metadata: MetadataKeys, _ zone: ZoneID
    ) throws(Errno) -> [UInt8]? {
        try open(blob, under: metadata.links, aad: SealedBlob.linkAAD(volume: description.volume, zone: zone))
    }

    /// Of a link whose tree is on its way to another zone, or has gone there since the link was looked up.
    private func openElsewhere(_ blob: SealedBlob, _ inode: Inode, not known: ZoneID) throws(Errno) -> [UInt8]? {
        var refusal: Errno?
        for zone in try metadataZones(inode) where zone != known {
            // First the zone, then its keys: a revocation finds it.
            inode.willMove(to: zone)
            do throws(Errno) {
                if let metadata = try keys(zone).metadata(blob.keyVersion),
                    let target = try openTarget(blob, metadata, zone)
                {
                    inode.setZone(zone)
                    return target
                }
            } catch { refusal = error }
            inode.willMove(to: known)
        }
        if let refusal { throw refusal }
        return nil
    }

    private func lowerLink(_ inode: Inode) throws(Errno) -> [UInt8] {
        let descriptor = try open(inode, flags: Int32(LINUX_O_PATH))
        return try Lower.readLink(descriptor, "")
    }

    private func wholeLinkText(_ lower: [UInt8], _ inode: Inode) throws(Errno) -> [UInt8] {
        guard lower.first == LinkEncoding.splitMark else { return lower }
        guard let id = Self.tailID(lower) else { throw damaged(.linkTarget, inode.number, "malformed") }
        do {
            return Array(lower[(1 + LinkEncoding.idCount)...]) + (try Lower.readLink(volumeDirectory, "links/" + id))
        } catch {
            guard error == .noEntry else { throw error }
            throw damaged(.linkTarget, inode.number, "tail missing")
        }
    }

    /// `st_size` of a symbolic link: the length of the plaintext target.
    func linkSize(_ inode: Inode, _ info: stat) throws(Errno) -> Int {
        if info.st_size < LinkEncoding.maximumTarget {
            return LinkEncoding.plainCount(lowerCount: Int(info.st_size)) ?? 0
        }
        do {
            return LinkEncoding.plainCount(lowerCount: try wholeLinkText(try lowerLink(inode), inode).count) ?? 0
        } catch {
            guard error == .io else { throw error }
            return 0
        }
    }

    // A revocation waits for nobody who seals or opens a short value, so its key is not left in the cipher context.

    /// Seals a short value.
    func seal(
        _ plaintext: UnsafeRawBufferPointer, under key: borrowing AEADKey, version: KeyVersion, aad: [UInt8]
    ) throws(Errno) -> SealedBlob {
        var iv = [UInt8](repeating: 0, count: AEADContext.ivSize)
        var tag = [UInt8](repeating: 0, count: AEADContext.tagSize)
        var ciphertext = [UInt8](repeating: 0, count: plaintext.count)
        var done = false
        iv.withUnsafeMutableBytes { iv in
            tag.withUnsafeMutableBytes { tag in
                ciphertext.withUnsafeMutableBytes { output in
                    aad.withUnsafeBytes { aad in
                        done = sealRaw(plaintext, under: key, iv: iv, aad: aad, output: output, tag: tag)
                    }
                }
            }
        }
        guard done else { throw .io }
        return SealedBlob(keyVersion: version, iv: iv, tag: tag, ciphertext: ciphertext)
    }

    private func sealRaw(
        _ plaintext: UnsafeRawBufferPointer, under key: borrowing AEADKey, iv: UnsafeMutableRawBufferPointer,
        aad: UnsafeRawBufferPointer, output: UnsafeMutableRawBufferPointer, tag: UnsafeMutableRawBufferPointer
    ) -> Bool {
        guard let ivStart = iv.baseAddress, let tagStart = tag.baseAddress else { return false }
        // An empty value has no address of its own; any will do for no bytes.
        let outputStart = output.baseAddress ?? tagStart
        do {
            try RandomBytes.fill(iv)
            try aead.withContext(for: key) { (context) throws(CipherError) in
                defer { context.wipe() }
                try context.loadForSealing(key)
                try context.seal(iv: ivStart, aad: aad, plaintext: plaintext, ciphertext: outputStart, tag: tagStart)
            }
            return true
        } catch { return false }
    }

    /// Opens a short value; `nil` when it is not authentic.
    func open(_ blob: SealedBlob, under key: borrowing AEADKey, aad: [UInt8]) throws(Errno) -> [UInt8]? {
        var plaintext = [UInt8](repeating: 0, count: blob.ciphertext.count + 1)
        var done = false
        plaintext.withUnsafeMutableBytes { output in
            blob.ciphertext.withUnsafeBytes { ciphertext in
                blob.iv.withUnsafeBytes { iv in
                    blob.tag.withUnsafeBytes { tag in
                        aad.withUnsafeBytes { aad in
                            guard let output = output.baseAddress, let iv = iv.baseAddress, let tag = tag.baseAddress
                            else { return }
                            do throws(CipherError) {
                                try aead.withContext(for: key) { (context) throws(CipherError) in
                                    defer { context.wipe() }
                                    try context.loadForOpening(key)
                                    try context.open(
                                        iv: iv, aad: aad, ciphertext: ciphertext, tag: tag, plaintext: output)
                                }
                                done = true
                            } catch {}
                        }
                    }
                }
            }
        }
        guard done else { return nil }
        plaintext.removeLast()
        return plaintext
    }
}
