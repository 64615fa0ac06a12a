import CLinux
import Storage
import Synchronization
import VolumeFormat

/// A regular file that several threads read pieces of; the last one closes it.
final class CheckedFile: Sendable {
    let content: FileContent
    let path: VolumeCheck.Path
    let output: SalvageDirectory.File?
    /// Pieces that are known and not done, and whether one of them met damage.
    let state = Mutex<(left: Int, damaged: Bool)>((1, false))

    init(_ content: FileContent, _ path: VolumeCheck.Path, _ output: SalvageDirectory.File?) {
        self.content = content
        self.path = path
        self.output = output
    }
}

extension VolumeCheck {
    /// Files that are larger are read by several threads, so much at a time.
    private static let pieceSize: UInt64 = 32 << 20
    /// Entries that wait for a thread, at most: each is an inode in memory.
    private static let waitingLimit = 4096

    func check(directory inode: Inode, _ path: Path) {
        var target: SalvageDirectory?
        var below: [(Inode, Path)] = []
        // Of the listing itself.
        var seen: [Damage] = []
        var isOpen = false
        let failure = attempt {
            let stream = try volume.openDirectory(inode)
            isOpen = true
            target = salvage(directory: inode, path)
            try stream.read { (item) throws(Errno) in
                if item.isDot { return true }
                seen += DamageScope.take()
                let name = String(decoding: item.name, as: UTF8.self)
                var child = Path(text: path.text + "/" + name, name: [UInt8](item.name), target: target)
                // One that cannot be looked at hides none of the others.
                do throws(Errno) {
                    guard let entry = try volume.entry(item, in: inode) else {
                        conclude(child, .noEntry)
                        return true
                    }
                    child.link = link(entry, item, in: inode)
                    below.append((entry.inode, child))
                    // The look at its size has settled it.
                    if DamageScope.takeSettled() { noteUnsettled(child, repaired: true) }
                } catch { conclude(child, error) }
                return true
            }
        }
        conclude(path, failure, alsoSeen: seen)
        // What of it cannot be read hides nothing of the rest.
        if isOpen {
            checkAttributes(inode, path, after: failure) { [target] (name, value) throws(Errno) in
                try target?.setAttribute(name, value)
            }
            checkLeftovers(inode, path)
            let places = attempt {
                if inode !== volume.rootInode {
                    try checkPlaces(inode, try volume.handle(inode).header.directory, path)
                }
            }
            conclude(path, places == failure ? nil : places)
        }
        count { $0.directories += 1 }
        for (child, childPath) in below {
            let item: Item = child.kind == .directory ? .directory(child, childPath) : .leaf(child, childPath)
            // A directory is never done within another one: trees may be deeper than a stack.
            let limit = child.kind == .directory ? Int.max : Self.waitingLimit
            // Little waits: what is too much is done at once, on this thread.
            if !queue.add(item, limit: limit) { check(leaf: child, childPath) }
        }
        if inode !== volume.rootInode { volume.forget(inode, count: 1) }
    }

    func check(leaf inode: Inode, _ path: Path) {
        defer {
            volume.forget(inode, count: 1)
            if let link = path.link { volume.forget(link.directory, count: 1) }
        }
        var file: CheckedFile?
        let failure = attempt {
            try opening(link: inode, path) { () throws(Errno) in
                try salvagingOnce(inode, path) { () throws(Errno) in
                    file = try read(inode, path)
                    guard let content = file?.content else { return }
                    try checkPlaces(inode, content.lock.reading { content.header.file }, path)
                }
            }
        }
        conclude(path, failure)
        checkAttributes(inode, path, after: failure) { [file] (name, value) throws(Errno) in
            try file?.output?.setAttribute(name, value)
        }
        count { report in
            switch inode.kind {
            case .regular: report.files += 1
            case .symbolicLink: report.links += 1
            case .directory, .special: report.others += 1
            }
        }
        if let file { check(file, from: 0) }
    }

    /// Opens a file, whose contents are to be read; what else it may be is read, and copied.
    private func read(_ inode: Inode, _ path: Path) throws(Errno) -> CheckedFile? {
        switch inode.kind {
        case .regular: return try open(inode, path)
        case .symbolicLink: salvage(link: inode, path, try volume.readLink(inode))
        case .directory: break
        case .special: salvage(special: inode, path)
        }
        return nil
    }

    /// Reads an object's attributes, and copies those that open by `copy`, which may fail on its own. What failed before was told.
    private func checkAttributes(
        _ inode: Inode, _ path: Path, after told: Errno?, _ copy: (String, [UInt8]) throws(Errno) -> Void
    ) {
        var one: Errno?
        let failure = attempt {
            let read = try volume.readAttributes(inode)
            one = read.failure
            for (name, value) in read.attributes {
                salvage(attribute: name, path) { () throws(Errno) in try copy(name, value) }
            }
        }
        let error = failure ?? one
        conclude(path, error == told ? nil : error)
    }

    private func open(_ inode: Inode, _ path: Path) throws(Errno) -> CheckedFile {
        try volume.waitForCreator(of: inode)
        let content = try volume.openContent(inode, forWriting: false)
        if let tree = content.tree { metFiles.withLock { _ = $0.insert(tree.file) } }
        do throws(Errno) {
            return CheckedFile(content, path, try salvage(file: inode, path))
        } catch {
            volume.closeContent(content)
            _ = DamageScope.takeSettled()
            throw error
        }
    }

    /// Reads a piece of a file, behind whatever holes are there; whoever is last closes it. The piece after it is another thread's: it
    /// becomes known here, so that a file of any size has few that wait.
    func check(_ file: CheckedFile, from start: UInt64) {
        let buffer = volume.buffers.take()
        var seen: [Damage] = []
        let failure = attempt {
            guard var stretch = try nextStretch(file, from: start, to: .max, &seen) else { return }
            let end = stretch.lowerBound + min(Self.pieceSize, UInt64.max - stretch.lowerBound)
            if end < file.content.size {
                file.state.withLock { $0.left += 1 }
                _ = queue.add(.piece(file, end))
            }
            while true {
                let last = min(stretch.upperBound, end)
                guard try read(file, stretch.lowerBound..<last, buffer, &seen), last < end,
                    let next = try nextStretch(file, from: last, to: end, &seen)
                else { return }
                stretch = next
            }
        }
        volume.buffers.give(buffer)
        let damaged = failure != nil || !seen.isEmpty
        conclude(file.path, failure, alsoSeen: seen)
        let (isLast, isDamaged) = file.state.withLock { state in
            state.left -= 1
            state.damaged = state.damaged || damaged
            return (state.left == 0, state.damaged)
        }
        guard isLast else { return }
        settle(file, isDamaged: isDamaged)
        if let output = file.output { salvaged(output, file.path, size: file.content.size) }
        volume.closeContent(file.content)
        _ = DamageScope.takeSettled()
    }

    private func nextStretch(
        _ file: CheckedFile, from offset: UInt64, to end: UInt64, _ seen: inout [Damage]
    ) throws(Errno) -> Range<UInt64>? {
        var told: [Damage] = []
        let stretch = try file.content.nextStretch(from: offset, to: end) { error in
            told = DamageScope.take()
            let page = Geometry.page(at: offset).rawValue
            if told.isEmpty { told = [Damage(.page, inode: 0, page: page, reason: error.message)] }
        }
        // A node may be met before each stretch below it.
        seen += told.filter { !seen.contains($0) }
        return stretch
    }

    /// Reads so much of a file; false when it has ended.
    private func read(
        _ file: CheckedFile, _ range: Range<UInt64>, _ buffer: RequestBuffer, _ seen: inout [Damage]
    ) throws(Errno) -> Bool {
        var offset = range.lowerBound
        while offset < range.upperBound {
            // A piece ends where it ends: what lies behind is another thread's.
            let count = Int(min(UInt64(RequestBuffer.maximumRequest), range.upperBound - offset))
            do throws(Errno) {
                let data = try file.content.read(at: offset, count: count, buffer)
                if data.isEmpty { return false }  // Truncated meanwhile.
                took(data, of: file, at: offset, buffer)
                offset += UInt64(data.count)
            } catch {
                guard error == .io else { throw error }
                // Go on page by page, so that every damaged one is named; what the request met is met again.
                _ = DamageScope.take()
                offset = try readByPages(file, from: offset, to: offset + UInt64(count), buffer, &seen)
            }
        }
        return true
    }

    private func readByPages(
        _ file: CheckedFile, from start: UInt64, to end: UInt64, _ buffer: RequestBuffer, _ seen: inout [Damage]
    ) throws(Errno) -> UInt64 {
        var offset = start
        var search = SessionSearch()
        while offset < end {
            let page = Geometry.page(at: offset)
            let next = min(end, Geometry.plainStart(of: page) + UInt64(Geometry.capacity(of: page)))
            do throws(Errno) {
                let data = try file.content.read(at: offset, count: Int(next - offset), buffer)
                if data.isEmpty { return end }
                took(data, of: file, at: offset, buffer)
            } catch {
                guard error == .io else { throw error }
                var told = DamageScope.take()
                // A lower read that fails says nothing about the page itself.
                if told.isEmpty { told = [Damage(.page, inode: 0, page: page.rawValue, reason: error.message)] }
                if file.output != nil, told.contains(where: { $0.object == .pageTree }) {
                    told = salvage(page, of: file, &search, buffer, told)
                }
                seen += told
            }
            offset = next
        }
        return offset
    }

    /// Copies a page out for whose version the page tree cannot vouch; says so in what is told of it.
    private func salvage(
        _ page: PageIndex, of file: CheckedFile, _ search: inout SessionSearch, _ buffer: RequestBuffer,
        _ told: [Damage]
    ) -> [Damage] {
        guard let data = try? file.content.readUnlisted(page, &search, buffer) else { return told }
        took(data, of: file, at: Geometry.plainStart(of: page), buffer)
        return told.map { damage in
            var damage = damage
            damage.page = page.rawValue
            damage.reason += "; copied, perhaps not its newest version"
            return damage
        }
    }

    private func took(
        _ data: UnsafeRawBufferPointer, of file: CheckedFile, at offset: UInt64, _ buffer: RequestBuffer
    ) {
        file.output?.write(data, at: offset)
        count { $0.bytes += UInt64(data.count) }
        guard let pacer else { return }
        // A revocation does not wait for who waits for its rate; what it knows of names it lets go of soon after.
        let (size, zone) = (data.count, file.content.inode.zone)
        buffer.wipe()
        pacer.pass(size) { (try? volume.keys(zone)) != nil }
    }
}
