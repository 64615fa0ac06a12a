import CLinux
import Storage
import Synchronization
import VolumeFormat

/// Reads everything that a volume holds, and tells what cannot be read, by plaintext path.
///
/// It works on any mounted volume, also beside programs: what is renamed or removed meanwhile is passed over.
package final class VolumeCheck: Sendable {
    package struct Options: Sendable {
        package var threads = 1
        /// Of plaintext; `nil` for as fast as it goes.
        package var bytesPerSecond: UInt64?
        /// Settles what a crash left unsettled, and removes what it left over. The volume must be writable.
        package var repair = false
        /// A directory into which all that opens is copied.
        package var salvage: String?
        package init() {}
    }

    package struct Finding: Sendable, Equatable, Codable {
        /// Plaintext path from the root; bytes that are no UTF-8 are shown as U+FFFD.
        package var path: String
        package var object: String
        package var page: UInt64?
        package var reason: String

        package init(path: String, object: String, page: UInt64?, reason: String) {
            self.path = path
            self.object = object
            self.page = page
            self.reason = reason
        }
    }

    /// What a crash left behind and nothing needs; no damage.
    package struct Leftover: Sendable, Equatable, Codable {
        package enum Kind: String, Sendable, Codable {
            case place = "says of a name from before a crash that it is its own"
            case sidecar = "name without an entry"
            case temporary = "directory half made or half removed"
            case newFile = "file half replaced"
            case unsettled = "file not closed before a crash"
            case tree = "page tree of a file that is gone"
            case heldTree =
                "page tree of a file that was not met, kept: it may lie in lost+found, or in what was left over"
            case heldLines =
                "files that the manifest lists were not met, kept: they may lie in lost+found, or in what was left over"
        }
        /// Of the directory that holds it, or of the file.
        package var path: String
        package var kind: Kind
        package var repaired: Bool

        package init(path: String, kind: Kind, repaired: Bool) {
            self.path = path
            self.kind = kind
            self.repaired = repaired
        }
    }

    package struct Report: Sendable, Equatable {
        package var directories = 0
        package var files = 0
        package var links = 0
        package var others = 0
        package var bytes: UInt64 = 0
        package var findings: [Finding] = []
        package var leftovers: [Leftover] = []
        /// Paths in zones whose keys are not here: nothing can be said about them.
        package var closed: [String] = []
        /// Entries copied out.
        package var salvaged = 0
        /// Something lies where the walk does not go, a file of the volume perhaps: what belongs to files that were not met stays.
        package var holdsOthers = false

        /// Everything was read, and nothing in the volume is damaged or closed. What could not be copied out says nothing of it.
        package var sawAll: Bool { closed.isEmpty && findings.allSatisfy { $0.object == "salvage" } }
    }

    let volume: Volume
    let options: Options
    let pacer: Pacer?
    /// Files with several names whose places are looked at by each of them.
    let linkedPlaces = Mutex<[UInt64: [PlaceList.Place]]>([:])
    let queue: WorkQueue<Item>
    let target: SalvageDirectory?
    let salvagedLinks = SalvagedLinks()
    /// Files that were met, where they have page trees.
    let metFiles = Mutex<Set<UniqueID>>([])
    private let onProgress: @Sendable (Report) -> Void
    private let report = Mutex(Report())

    /// An entry of the tree on its way through the check.
    struct Path: Sendable {
        /// For people.
        let text: String
        /// As it is called on disk, without NUL.
        let name: [UInt8]
        /// Where its directory is salvaged to.
        let target: SalvageDirectory?
        /// Of a file with several names, on a volume with places: this one.
        var link: LinkName?
        var shown: String { text.isEmpty ? "/" : text }
    }

    /// As it is stored, with NUL. The directory carries a reference of ours.
    struct LinkName: Sendable {
        let directory: Inode
        let name: [CChar]
    }

    /// What one thread does at a time. Each inode carries a reference of ours.
    enum Item {
        case directory(Inode, Path)
        case leaf(Inode, Path)
        /// From a plaintext offset on.
        case piece(CheckedFile, UInt64)
    }

    /// `onProgress` is called after each entry, from any of the threads, one at a time.
    package init(
        _ volume: Volume, options: Options = Options(), onProgress: @escaping @Sendable (Report) -> Void = { _ in }
    ) throws(Errno) {
        self.volume = volume
        self.options = options
        self.onProgress = onProgress
        pacer = options.bytesPerSecond.map(Pacer.init)
        target = if let path = options.salvage { try SalvageDirectory(path: path) } else { nil }
        queue = WorkQueue([.directory(volume.rootInode, Path(text: "", name: [], target: target))])
    }

    /// Walks the whole tree.
    package func run() -> Report {
        checkVolumeDirectory()
        checkLostAndFoundAbove()
        PlainThread.run(options.threads) { [self] _ in
            DamageScope.begin()
            defer { DamageScope.end() }
            while let item = queue.next() {
                check(item)
                queue.done()
            }
        }
        checkTrees()
        // The last that has directories open: now they get their owners, modes and times.
        salvagedLinks.end()
        syncSalvage()
        return report.withLock { report in
            report.findings.sort { ($0.path, $0.page ?? 0) < ($1.path, $1.page ?? 0) }
            report.leftovers.sort { $0.path < $1.path }
            return report
        }
    }

    func check(_ item: Item) {
        switch item {
        case .directory(let inode, let path): check(directory: inode, path)
        case .leaf(let inode, let path): check(leaf: inode, path)
        case .piece(let file, let start): check(file, from: start)
        }
    }

    func count(_ change: (inout Report) -> Void) {
        report.withLock { report in
            change(&report)
            onProgress(report)
        }
    }

    /// Notes what was met of one object: damage that the engine told of, or the error alone.
    func conclude(_ path: Path, _ failure: Errno?, alsoSeen: [Damage] = []) {
        let damages = alsoSeen + DamageScope.take()
        count { report in
            report.findings += damages.map {
                Finding(path: path.shown, object: $0.object.rawValue, page: $0.page, reason: $0.reason)
            }
            guard let failure, damages.isEmpty else { return }
            switch failure {
            case .noKey, .keyRevoked: report.closed.append(path.shown)
            // Gone meanwhile: programs are at work.
            case .noEntry where !isAlone, .stale where !isAlone: break
            default:
                report.findings.append(
                    Finding(path: path.shown, object: "lower storage", page: nil, reason: failure.message))
            }
        }
    }

    /// Everything was read, and nothing is damaged or closed.
    var sawAll: Bool { report.withLock { $0.sawAll } }

    var holdsOthers: Bool { report.withLock { $0.holdsOthers } }

    func attempt(_ body: () throws -> Void) -> Errno? {
        do {
            try body()
            return nil
        } catch { return error as? Errno ?? .io }
    }
}
