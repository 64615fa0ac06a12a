import CLinux
import Ciphers
import Storage
import VolumeFormat

/// Re-encryption of one file, in place, while programs use it (FORMAT §10):
///
/// 1. `prepareReencryption` stores a second slot, which is made durable before anything is sealed by its DEK;
/// 2. `beginReencryption` makes it current: all that programs write is sealed by it from here on;
/// 3. `resealPages` goes over the pages; each tells by its own leader whether it is done;
/// 4. all that is made durable, and `endReencryption` lets the old slots go.
///
/// After a crash anywhere the slots and the pages tell what is left. A file of one page needs none of it: header and page go in one
/// write.
extension FileContent {
    enum Preparation: Equatable {
        case nothing
        /// All is done, in one write or none.
        case done
        /// A slot was stored; once it is durable its DEK may be used.
        case stored(KeyVersion)
        /// Nothing was stored: the current DEK is new enough, and old ones are still there.
        case underway(KeyVersion)
        /// Nothing was stored, and the current DEK is due: the pages first have to be brought to it, and old ones have to go. The fourth slot
        /// is left to programs, since a page that cannot be opened keeps the slots that there are.
        case full(KeyVersion)
    }

    /// Step 1.
    func prepareReencryption(_ due: DueDEKs) throws(Errno) -> Preparation {
        // Not while nodes under the old DEK are on their way.
        try volume.storingTrees { () throws(Errno) in try prepareAlone(due) }
    }

    private func prepareAlone(_ due: DueDEKs) throws(Errno) -> Preparation {
        try ensureKeys()
        // A program that has asked for the keys, and is about to store an attribute under them, comes before or after.
        return try volume.attributeGate(inode).lock.withLock { (_) throws(Errno) in try prepareInGate(due) }
    }

    private func prepareInGate(_ due: DueDEKs) throws(Errno) -> Preparation {
        let hasAttributes = try volume.hasSealedAttributes(lock.reading { descriptor })
        return try lock.writing { () throws(Errno) in
            guard isWritable else { throw .access }
            guard !volume.hasLostFlush else { throw .io }
            try requireKeys()
            let slot = header.slots[header.currentIndex]
            let now = Volume.now
            guard due.includes(slot.created, now: now) else {
                return header.slots.count > 1 ? .underway(slot.version) : .nothing
            }
            if stage == .unwritten {
                // A header that a first write left behind as it failed may be under the old key.
                if tailIsDoubtful { try clearTail() }
                (header.slots, keys) = try freshSlot(due).list
                // A first write that failed had a lease of the key that goes.
                invocationsLeft = 0
                return .done
            }
            // Nodes of a page tree, of a time when it was larger, may be under the old DEK; and so may pages, if the power goes, where they
            // were cut off in this mount.
            if !hasAttributes, size <= UInt64(Geometry.firstPayload), stage != .doubtful, !tailIsDoubtful,
                header.epoch < volume.epoch, tree?.hasNodes != true
            {
                try reencryptFirstPage(due)
                return .done
            }
            let prepared = header.slots.first { !due.includes($0.created, now: now) && $0.version > slot.version }
            if let prepared { return .stored(prepared.version) }
            guard header.slots.count < DEKSlot.maximumCount - 1 else { return .full(slot.version) }
            let previous = (header, keys)
            let fresh = try freshSlot(due)
            header.slots.append(fresh.slot)
            header.slots[header.slots.count - 1].state = .retiring
            keys.append(fresh.keys)
            do throws(Errno) { try storeAsItIs() } catch {
                (header, keys) = previous
                throw error
            }
            return .stored(fresh.slot.version)
        }
    }

    private struct Fresh {
        let slot: DEKSlot
        let keys: FileKeys
        var list: ([DEKSlot], [FileKeys]) { ([slot], [keys]) }
    }

    private func freshSlot(_ due: DueDEKs) throws(Errno) -> Fresh {
        guard let newest = header.slots.map(\.version).max(), newest.rawValue < PageLeader.maximumVersion else {
            throw .io
        }
        let version = KeyVersion(rawValue: newest.rawValue + 1)
        do {
            let (slot, dek) = try volume.storingKeys(header.zone)
                .makeSlot(version: version, now: due.date(now: Volume.now))
            return Fresh(
                slot: slot, keys: try FileKeys(version: version, dek: dek.key, file: header.file, isListed: tree != nil)
            )
        } catch { throw error as? Errno ?? .io }
    }

    /// Stores the header without a change of what it says of size and state. The caller holds `lock`.
    func storeAsItIs() throws(Errno) {
        header.generation += 1
        try storeHeader()
        if stage == .stale, header.state == .open { stage = .open }
    }

    /// A file of one page, or none: header and page are replaced by one write.
    private func reencryptFirstPage(_ due: DueDEKs) throws(Errno) {
        let buffer = volume.buffers.takeForSweep()
        defer { volume.buffers.give(buffer) }
        buffer.willUse(pages: 1)
        let fresh = try freshSlot(due)
        var length = Geometry.headerSize
        var old = [UInt8](repeating: 0, count: Geometry.pageSize)
        let got = try old.withUnsafeMutableBufferPointer { (bytes) throws(Errno) in
            guard let start = bytes.baseAddress else { return 0 }
            return try Lower.read(descriptor, into: start, count: Geometry.pageSize, at: 0)
        }
        let leader = old.withUnsafeBytes { bytes in
            bytes.baseAddress.map { PageLeader(at: $0 + Geometry.headerSize) } ?? PageLeader(versionAndLength: 0)
        }
        let hasPage = size > 0 && got == Geometry.pageSize && leader.versionAndLength != 0
        if size > 0 {
            // A hole is checked to be one.
            old.withUnsafeBytes {
                if let start = $0.baseAddress { buffer.cipher.copyMemory(from: start, byteCount: got) }
            }
            let first = PageIndex(rawValue: 0)
            try openPages(first, count: 1, cipher: buffer.cipher, available: got, plain: buffer.plain)
        }
        try holdLines(PageIndex(rawValue: 0), count: 1)
        let previous = (header, keys, invocationsLeft)
        (header.slots, keys) = fresh.list
        header.generation += 1
        invocationsLeft = 0
        do {
            if hasPage {
                header.slots[0].invocationBound = 1
                length = Geometry.pageSize
                var iv = try PageIV()
                let key = current
                try volume.aead.withContext(for: key.content) { (context) throws(CipherError) in
                    try context.loadForSealing(key.content)
                    try sealPage(
                        PageIndex(rawValue: 0), used: leader.usedLength, plain: buffer.plain, at: buffer.cipher,
                        iv: &iv,
                        using: &context)
                }
            }
            try encodeHeader(into: buffer.cipher)
            try Lower.write(descriptor, from: buffer.cipher, count: length, at: 0)
            if hasPage { listPages(PageIndex(rawValue: 0), count: 1, at: buffer.cipher) }
            noteStored()
            if stage == .stale, header.state == .open { stage = .open }
        } catch {
            (header, keys, invocationsLeft) = previous
            doubtPages()
            // Whatever a failed write left: the whole as it was.
            old.withUnsafeBytes { bytes in
                guard let start = bytes.baseAddress else { return }
                do throws(Errno) { try Lower.write(descriptor, from: start, count: min(got, length), at: 0) } catch {
                    volume.markDirty()
                }
            }
            throw error as? Errno ?? .io
        }
    }

    /// Step 2. False when the slot is no longer there: the file is looked at again another time.
    func beginReencryption(_ version: KeyVersion) throws(Errno) -> Bool {
        try ensureKeys()
        return try lock.writing { () throws(Errno) in
            try requireKeys()
            guard current.version != version else { return true }
            guard let index = header.slots.firstIndex(where: { $0.version == version }) else { return false }
            // What was leased of the old one and not used is given back.
            header.slots[header.currentIndex].invocationBound -= invocationsLeft
            header.slots[header.currentIndex].state = .retiring
            header.slots[index].state = .current
            invocationsLeft = 0
            if stage == .open { stage = .stale }
            return true
        }
    }

    /// Step 3, for `count` pages from `first` on (at most what a buffer holds). Returns the bytes that were sealed anew; `nil` behind
    /// the end.
    ///
    /// The ciphers run under the shared lock, so that programs go on reading and other threads go on sealing. Where a program wrote
    /// meanwhile, it is done again.
    func resealPages(from first: UInt64, count: Int, _ buffer: RequestBuffer) throws(Errno) -> Int? {
        buffer.willUse(pages: count)
        for attempt in 0..<4 {
            try ensureKeys()
            if attempt == 3 {
                // Somebody writes all the time: he waits this once.
                var sealed: Int?
                try changing(sealing: count + 1) { () throws(Errno) in
                    guard let pages = try reserve(from: first, count) else { return }
                    sealed = try storePages(from: first, try sealStale(from: first, count: pages, buffer), buffer)
                }
                return sealed
            }
            var reserved: Reservation?
            try changing(sealing: count + 1) { () throws(Errno) in
                guard let pages = try reserve(from: first, count) else { return }
                reserved = Reservation(pages: pages, changes: changes.count, key: current.content.identity)
            }
            guard let reserved else { return nil }
            let stale: Stale? = try lock.reading { () throws(Errno) in
                try requireKeys()
                guard holds(reserved, first) else { return nil }
                return try sealStale(from: first, count: reserved.pages, buffer)
            }
            guard let stale else { continue }
            guard !stale.pages.isEmpty else { return 0 }
            let done: Int? = try lock.writing { () throws(Errno) in
                try requireKeys()
                // A header that says "closed" meanwhile would not explain the new pages to a page tree.
                guard stage == .open, holds(reserved, first), stale.session == tree?.session else { return nil }
                return try storePages(from: first, stale, buffer)
            }
            if let done { return done }
        }
        return 0
    }

    /// Pages that may be sealed, by which key, and how many changes of the file there were before.
    private struct Reservation {
        let pages: Int
        let changes: UInt64
        let key: UInt64
    }

    /// Takes invocations of the current key for at most `count` pages from `first` on; `nil` behind the end. The caller holds `lock` alone.
    private func reserve(from first: UInt64, _ count: Int) throws(Errno) -> Int? {
        try requireKeys()
        let pages = Geometry.pageCount(forSize: size)
        guard first < pages else { return nil }
        let wanted = Int(min(UInt64(count), pages - first))
        _ = try prepareHeader(sealing: wanted, inPlace: false)
        invocationsLeft -= UInt64(wanted)
        return wanted
    }

    /// No program changed the pages since, and no other key took over: what is sealed by it may be stored.
    private func holds(_ reserved: Reservation, _ first: UInt64) -> Bool {
        let last = first + UInt64(reserved.pages) - 1
        return reserved.key == current.content.identity
            && !changes.hasTouched(PageIndex(rawValue: first), PageIndex(rawValue: last), since: reserved.changes)
    }

    /// Pages in a buffer that were sealed anew, and in which session of the page tree.
    struct Stale {
        var pages: [Int] = []
        var session: UInt64?
    }

    /// Reads pages and seals those under an old DEK anew in the buffer. Returns which. The caller holds `lock`, and has the
    /// invocations for all of them.
    func sealStale(
        from first: UInt64, count: Int, _ buffer: RequestBuffer
    ) throws(Errno) -> Stale {
        let lines = try lines(PageIndex(rawValue: first), count: count)
        let got = try Lower.read(
            descriptor, into: buffer.cipher, count: count * Geometry.pageSize, at: first * UInt64(Geometry.pageSize))
        var iv = try PageIV()
        let key = current
        var stale = Stale(session: tree?.session)
        var damaged: Int?
        do {
            try volume.aead.withContext(for: key.content) { (context) throws in
                try context.loadForSealing(key.content)
                // What lies behind the read is a hole.
                for index in 0..<(got / Geometry.pageSize) {
                    let page = PageIndex(rawValue: first + UInt64(index))
                    let start = buffer.cipher + index * Geometry.pageSize
                    let leader = PageLeader(at: start + (page.rawValue == 0 ? Geometry.headerSize : 0))
                    if leader.version == key.version { continue }
                    guard try openPage(page, at: start, into: buffer.plain, line: lines?[index], using: &context)
                    else {
                        damaged = index
                        return
                    }
                    if leader.versionAndLength == 0 { continue }
                    try sealPage(
                        page, used: leader.usedLength, plain: buffer.plain, at: start, iv: &iv, using: &context)
                    stale.pages.append(index)
                }
            }
        } catch { throw error as? Errno ?? .io }
        if let damaged {
            throw damagedPage(
                PageIndex(rawValue: first + UInt64(damaged)), at: buffer.cipher + damaged * Geometry.pageSize,
                lines?[damaged])
        }
        return stale
    }

    /// Writes the pages that were sealed anew, neighbours together; never the header. The caller holds `lock` alone.
    func storePages(from first: UInt64, _ sealed: Stale, _ buffer: RequestBuffer) throws(Errno) -> Int {
        let stale = sealed.pages
        if let last = stale.last { try holdLines(PageIndex(rawValue: first), count: last + 1) }
        var index = 0
        while index < stale.count {
            var last = index
            while last + 1 < stale.count, stale[last + 1] == stale[last] + 1 { last += 1 }
            let page = first + UInt64(stale[index])
            let skip = page == 0 ? Geometry.headerSize : 0
            let count = (last - index + 1) * Geometry.pageSize - skip
            do throws(Errno) {
                try Lower.write(
                    descriptor, from: buffer.cipher + stale[index] * Geometry.pageSize + skip, count: count,
                    at: page * UInt64(Geometry.pageSize) + UInt64(skip))
            } catch {
                listWritten(
                    PageIndex(rawValue: page), count: last - index + 1,
                    at: buffer.cipher + stale[index] * Geometry.pageSize)
                throw error
            }
            listPages(
                PageIndex(rawValue: page), count: last - index + 1,
                at: buffer.cipher + stale[index] * Geometry.pageSize)
            index = last + 1
        }
        return stale.count * Geometry.pageSize
    }

    /// Step 4: all pages are under `version`, durably. False when another DEK has taken over meanwhile: then the old ones stay.
    func endReencryption(_ version: KeyVersion) throws(Errno) -> Bool {
        try volume.storingTrees { () throws(Errno) in
            try volume.gate(inode).lock.withLock { (_) throws(Errno) in try endReencryptionAlone(version) }
        }
    }

    private func endReencryptionAlone(_ version: KeyVersion) throws(Errno) -> Bool {
        try ensureKeys()
        return try lock.writing { () throws(Errno) in
            try requireKeys()
            guard current.version == version, header.slots.count > 1 else { return current.version == version }
            try letOldDEKsGo()
            return true
        }
    }

    /// Stores the tree and a header with the current DEK alone. All pages are under it, durably; the caller holds `lock` alone.
    func letOldDEKsGo() throws(Errno) {
        try storeTreeLocked(under: current.version)
        // Of whatever: pages that it hides from us may be lost.
        guard !volume.hasLostFlush else { throw .io }
        let previous = (header, keys)
        let slot = header.slots[header.currentIndex]
        keys = [current]
        header.slots = [slot]
        do throws(Errno) { try storeAsItIs() } catch {
            (header, keys) = previous
            throw error
        }
    }
}
