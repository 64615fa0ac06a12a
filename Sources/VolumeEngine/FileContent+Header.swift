import CLinux
import Ciphers
import Storage
import VolumeFormat

extension FileContent {
    /// Sees to it that the stored header says "open", and that its invocation bound covers `pages` more.
    ///
    /// Returns true when a header must still be stored and the caller writes page 0 anyway (`inPlace`): both then go in one
    /// write, and the caller sets `stage`.
    func prepareHeader(sealing pages: Int, inPlace: Bool) throws(Errno) -> Bool {
        if stage == .doubtful, try hasHoles() { markSparse() }
        if tailIsDoubtful { try clearTail() }
        if stage == .open, invocationsLeft >= UInt64(pages) { return false }
        if invocationsLeft < UInt64(pages) {
            let options = volume.options
            if header.slots[header.currentIndex].invocationBound >= options.invocationLimit { try replaceDEK() }
            let lease = max(options.invocationLease, UInt64(pages))
            header.slots[header.currentIndex].invocationBound += lease
            invocationsLeft += lease
            // Until the new bound is stored, whoever comes next has to store it.
            if stage == .open { stage = .stale }
        }
        header.state = .open
        header.generation += 1
        header.epoch = volume.epoch
        if inPlace { return true }
        try storeHeader()
        stage = .open
        return false
    }

    /// Stores the header as it is now.
    func storeHeader() throws(Errno) {
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: Geometry.headerSize, alignment: 16)
        defer { bytes.deallocate() }
        try encodeHeader(into: bytes)
        try Lower.write(descriptor, from: bytes, count: Geometry.headerSize, at: 0)
        noteStored()
    }

    /// Tells the manifest which generation is stored now. A file without a name is nobody's to find.
    func noteStored() {
        tree?.headerWasStored()
        guard let manifest = volume.manifest, volume.table.holds(inode) else { return }
        manifest.note(header)
    }

    /// Writes the header and its MAC to 512 bytes.
    func encodeHeader(into output: UnsafeMutableRawPointer) throws(Errno) {
        if let tree { header.tree = tree.rootForHeader(isOpen: header.state == .open) }
        try Self.encode(header, current, into: output)
    }

    /// Writes a header and its MAC, by the keys of its current slot, to 512 bytes.
    static func encode(_ header: FileHeader, _ current: FileKeys, into output: UnsafeMutableRawPointer) throws(Errno) {
        let body = header.authenticatedBytes
        let code: [UInt8]
        do { code = try HMACSHA256.code(key: current.headerMAC, message: body) } catch { throw .io }
        body.withUnsafeBytes {
            output.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(output), byteCount: $0.count)
        }
        code.withUnsafeBytes {
            (output + body.count).copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(output), byteCount: $0.count)
        }
    }

    /// From now on pages may be missing between others. Called before `prepareHeader`: after a crash nothing else could tell
    /// a hole from a page that was zeroed by an attacker.
    func markSparse() {
        holesAllowed = true
        guard header.flags.insert(.sparse).inserted, stage == .open else { return }
        stage = .stale
    }

    /// A new DEK for all pages from now on; the old one stays for the pages that it sealed. The new wrap is durable before the
    /// first page under it.
    private func replaceDEK() throws(Errno) {
        // `changing` has made room.
        guard header.slots.count < DEKSlot.maximumCount, let newest = header.slots.map(\.version).max(),
            newest.rawValue < PageLeader.maximumVersion
        else { throw .io }
        let previous = (header, keys)
        do {
            let version = KeyVersion(rawValue: newest.rawValue + 1)
            let (slot, dek) = try volume.storingKeys(header.zone).makeSlot(version: version, now: Volume.now)
            header.slots[header.currentIndex].state = .retiring
            header.slots.append(slot)
            keys.append(try FileKeys(version: version, dek: dek.key, file: header.file, isListed: tree != nil))
            invocationsLeft = 0
            header.generation += 1
            try storeHeader()
            try syncLower(descriptor)
        } catch {
            (header, keys) = previous
            throw error as? Errno ?? .io
        }
    }

    /// Whether `settle` has something to store. The caller holds `lock`.
    var hasToSettle: Bool { isWritable && (stage != .closed || header.state == .open) }

    /// Whether the last page was sealed when the file ended later in it: a truncation was stored, and a crash came before its page was. What
    /// lies there must not come back when the file grows.
    private func lastPageTellsMore() throws(Errno) -> Bool {
        guard size > 0 else { return false }
        let page = Geometry.page(at: size - 1)
        return try volume.usedLength(of: page, descriptor) > Int(size - Geometry.plainStart(of: page))
    }

    /// Brings header and lower length up to date when the last handle goes. The caller holds the gate and `lock`.
    func settle() throws(Errno) {
        guard hasToSettle, !(staysDoubtful && stage == .doubtful) else { return }
        let info = try Lower.stat(descriptor)
        guard info.st_nlink > 0 else { return }
        try requireKeys()
        let isDoubtful = stage == .doubtful
        let wasUnwritten = stage == .unwritten
        if isDoubtful, try hasHoles() { header.flags.insert(.sparse) }
        if tailIsDoubtful {
            let mustGo = isDoubtful ? try lastPageTellsMore() : true
            if mustGo { try clearTail() }
        }
        header.state = .closed
        header.size = size
        header.generation += 1
        header.epoch = volume.epoch
        // What was leased and not used is given back.
        header.slots[header.currentIndex].invocationBound -= invocationsLeft
        invocationsLeft = 0
        try storeHeader()
        if isDoubtful {
            try setLowerLength()
        } else if !lengthTellsSize {
            // The pages end where the lower file does: nothing has to be cut before the length tells the size.
            if size > 0 || !wasUnwritten { try Lower.truncate(descriptor, to: Geometry.lowerLength(forSize: size)) }
            lengthTellsSize = true
        }
        tailIsDoubtful = false
        stage = .closed
        if isDoubtful { DamageScope.noteSettled() }
        // The program's times, not those of this bookkeeping.
        do { try Lower.changeTimes(descriptor, access: info.st_atim, modification: info.st_mtim) } catch {
            // A plain user's daemon may write to a file that it does not own.
            guard error == .perm else { throw error }
        }
    }

    /// True when the lower file has a hole before its last page's end.
    private func hasHoles() throws(Errno) -> Bool {
        let pages = Geometry.pageCount(forSize: size)
        guard pages > 0 else { return false }
        let firstHole = try Lower.seek(descriptor, to: 0, whence: SeekWhence.hole)
        return holesAllowed && (header.flags.contains(.sparse) || firstHole < pages * UInt64(Geometry.pageSize))
    }
}
