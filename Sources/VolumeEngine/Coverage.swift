import CLinux
import KeyManagement
import Storage
import Synchronization
import VolumeFormat

/// What each key version of a zone protects, counted from the headers themselves, each of them authenticated.
package struct Coverage: Sendable, Equatable {
    package struct Count: Sendable, Equatable {
        package var files: UInt64 = 0
        package var directories: UInt64 = 0
        /// Plaintext bytes of the files.
        package var bytes: UInt64 = 0
        /// Plaintext paths of the first ten objects.
        package var paths: [String] = []
        package var objects: UInt64 { files + directories }
        package init() {}
    }

    /// By version of the KEK that wraps a DEK. A file with several DEKs counts under each KEK that it needs.
    package var keks: [KeyVersion: Count] = [:]
    /// By number of the current DEK within its file or directory: 1 is the first that it ever had.
    package var deks: [KeyVersion: Count] = [:]
    /// By version of the zone's metadata key: link targets, and attributes of links and special files.
    package var metadata: [KeyVersion: UInt64] = [:]
    /// Files that hold more than one DEK: their re-encryption is under way.
    package var mixed: UInt64 = 0
    /// Files that have lost their last name and are still open; they are among the others.
    package var unlinked: UInt64 = 0
    /// Files that were made just now and hold nothing yet.
    package var unwritten: UInt64 = 0
    /// The oldest current DEK of a file, in seconds since 1970; 0 if there is none.
    package var oldestDEK: UInt64 = 0
    /// How many files' current DEKs were made in which span of time, by its beginning in seconds since 1970; and directories'. Only
    /// where a span's length was asked for.
    package var filesByAge: [UInt64: UInt64] = [:]
    package var directoriesByAge: [UInt64: UInt64] = [:]
    /// Objects whose header or seal could not be read: what protects them is not known.
    package var failed: UInt64 = 0
    package var failures: [String] = []

    static let keptPaths = 10
    package init() {}
}

final class CoverageSweep: SweepVisitor {
    let isForEverything = true
    private let volume: Volume
    private let zone: ZoneID
    private let control: SweepControl
    /// Seconds; 0 to count no ages.
    private let ageStep: UInt64
    // Leaf locks.
    private let coverage = Mutex(Coverage())
    /// Files with several names, so that each counts once.
    private let seen = Mutex<Set<InodeKey>>([])

    init(_ volume: Volume, _ zone: ZoneID, _ control: SweepControl, ageStep: UInt64 = 0) {
        self.volume = volume
        self.zone = zone
        self.control = control
        self.ageStep = ageStep
    }

    var result: Coverage {
        var result = coverage.withLock { $0 }
        let progress = control.progress
        result.failed = progress.failed
        result.failures = control.failures
        return result
    }

    func wants(_ zone: ZoneID) -> Bool { volume.mayHold(zone, self.zone) }
    func finish(thread: Int) {}

    func visit(_ directory: SweepDirectory) throws(Errno) {
        guard directory.zone == zone else { return }
        count(directory.header.slots, size: nil) { directory.path() }
        control.count { $0.directories += 1 }
    }

    func visitFile(_ entry: SweepEntry, thread: Int) throws(Errno) {
        let start = SweepControl.nanoseconds
        let before = volume.buffers.uses
        defer {
            var uses = before
            _ = control.pace(
                bytes: 0, worked: SweepControl.nanoseconds - start, uses: volume.buffers.uses, lastUses: &uses)
        }
        let descriptor = try volume.openToRead(entry)
        let info = try Lower.stat(descriptor)
        guard info.st_mode & mode_t(S_IFMT) == mode_t(S_IFREG) else { return }
        if info.st_nlink > 1, !seen.withLock({ $0.insert(InodeKey(info)).inserted }) { return }
        // A header on its way is not read in two halves.
        let header = try volume.gate(number: UInt64(info.st_ino)).lock.withLock { (_) throws(Errno) -> FileHeader? in
            guard try Lower.stat(descriptor).st_size > 0 else { return nil }
            // A program that has it open stores its header under this lock alone.
            let inode = volume.table.find(InodeKey(info))
            defer { if let inode { volume.table.release(inode) } }
            guard let content = inode?.state.withLock({ $0.content }) else {
                return try readHeader(entry, info, descriptor)
            }
            return try content.lock.reading { () throws(Errno) in try readHeader(entry, info, descriptor) }
        }
        // Of a tree on its way between two zones each object counts where its header says.
        guard (header?.zone ?? entry.zone) == zone else { return }
        control.count {
            $0.files += 1
            $0.bytes.addUpToMaximum(Volume.plainSize(info))
        }
        if let header {
            count(header.slots, size: Volume.plainSize(info)) { entry.path }
        } else {
            coverage.withLock { $0.unwritten += 1 }
        }
    }

    private func readHeader(
        _ entry: SweepEntry, _ info: stat, _ descriptor: Descriptor
    ) throws(Errno) -> FileHeader? {
        let read = try volume.readHeader(entry.zone, UInt64(info.st_ino), descriptor) { (other) throws(Errno) in
            try volume.admits(entry, other)
        }
        return read?.0
    }

    func visitOther(_ entry: SweepEntry, isLink: Bool, thread: Int) throws(Errno) {
        control.count { $0.links += 1 }
        let inode = try entry.inode(volume)
        defer { volume.table.release(inode) }
        let versions = try volume.metadataVersions(inode, isLink: isLink, in: zone)
        coverage.withLock { coverage in for version in versions { coverage.metadata[version, default: 0] += 1 } }
    }

    /// Files that no walk finds: without a name, or without a header yet.
    func countUnlinked() {
        for inode in volume.table.retainAll() {
            defer { volume.table.release(inode) }
            guard inode.zone == zone, let content = inode.state.withLock({ $0.content }),
                let info = try? content.lowerAttributes()
            else { continue }
            let (slots, stage) = content.lock.reading { (content.header.slots, content.stage) }
            if info.st_nlink == 0 {
                count(slots, size: content.size) { "(open, without a name: lower inode \(inode.number))" }
                coverage.withLock { $0.unlinked += 1 }
            } else if stage == .unwritten {
                count(slots, size: 0) { "(open, not stored yet: lower inode \(inode.number))" }
            }
        }
    }

    private func count(_ slots: [DEKSlot], size: UInt64?, _ path: () -> String) {
        guard let current = slots.first(where: { $0.state == .current }) else { return }
        coverage.withLock { coverage in
            func add(_ count: inout Coverage.Count) {
                if let size {
                    count.files += 1
                    count.bytes.addUpToMaximum(size)
                } else {
                    count.directories += 1
                }
            }
            for version in Set(slots.map(\.kekVersion)) {
                add(&coverage.keks[version, default: .init()])
                if coverage.keks[version, default: .init()].paths.count < Coverage.keptPaths {
                    coverage.keks[version, default: .init()].paths.append(path())
                }
            }
            add(&coverage.deks[current.version, default: .init()])
            if ageStep > 0 {
                let made = current.created - current.created % ageStep
                if size == nil {
                    coverage.directoriesByAge[made, default: 0] += 1
                } else {
                    coverage.filesByAge[made, default: 0] += 1
                }
            }
            guard size != nil else { return }
            if slots.count > 1 { coverage.mixed += 1 }
            if coverage.oldestDEK == 0 || current.created < coverage.oldestDEK { coverage.oldestDEK = current.created }
        }
    }
}

extension Volume {
    /// Opens a lower file to read its header, whatever its mode.
    func openToRead(_ entry: SweepEntry) throws(Errno) -> Descriptor {
        do { return try entry.open(self, flags: O_RDONLY | O_NONBLOCK | O_NOCTTY) } catch {
            guard error == .access, !isPrivileged else { throw error }
            return try openForSweep(entry)
        }
    }

    /// The same for those of one zone, where a tree is on its way to another.
    func metadataVersions(_ inode: Inode, isLink: Bool, in zone: ZoneID) throws(Errno) -> Set<KeyVersion> {
        guard !transitions.isEmpty else { return try metadataVersions(inode, isLink: isLink) }
        var versions: Set<KeyVersion> = []
        if isLink {
            _ = try readLink(inode)
            if inode.zone == zone { versions.insert(try linkKeyVersion(inode)) }
        }
        for bytes in try metadataAttributes(inode) {
            if let version = try metadataVersion(bytes, inode, in: zone) { versions.insert(version) }
        }
        return versions
    }

    /// Versions of the metadata keys that seal a link's target, and the attributes of a link or special file.
    func metadataVersions(_ inode: Inode, isLink: Bool) throws(Errno) -> Set<KeyVersion> {
        var versions: Set<KeyVersion> = []
        if isLink { versions.insert(try linkKeyVersion(inode)) }
        for bytes in try metadataAttributes(inode) {
            guard let blob = bytes.withUnsafeBytes({ try? SealedBlob(parsing: $0) }) else {
                throw damaged(.attribute, inode.number, "malformed")
            }
            versions.insert(blob.keyVersion)
        }
        return versions
    }

    /// The sealed attributes of a link or special file, as they are stored.
    private func metadataAttributes(_ inode: Inode) throws(Errno) -> [[UInt8]] {
        let node = try open(inode, flags: Int32(LINUX_O_PATH))
        var all: [[UInt8]] = []
        for name in try Lower.listAttributes(path: node.procPath).map({ String(decoding: $0, as: UTF8.self) })
        where name.hasPrefix(AttributeKey.trustedPrefix) {
            all.append(try Lower.getAttribute(path: node.procPath, name))
        }
        return all
    }
}
