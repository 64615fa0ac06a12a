import CLinux
import FoundationEssentials
import Storage
import VolumeEngine
import VolumeFormat

/// What a revocation did, and how long each step took.
package struct RevocationReport: Codable, Sendable, Equatable {
    package var zone: UInt32
    /// Why: the owner's answer, the end of the lease, or somebody's command.
    package var cause: String
    /// The errno that programs get: EKEYREVOKED or ENOKEY.
    package var errno: Int32
    package var at: Date
    /// Milliseconds from the decision to the end of each step.
    package var drainedMilliseconds: Double
    package var closedMilliseconds: Double
    package var purgedMilliseconds: Double
    package var canaryMilliseconds: Double
    /// Inodes that the kernel knew, and files that programs had open.
    package var inodes: Int
    package var openFiles: Int
    /// Everything that programs had written was stored before the keys went.
    package var isDrained: Bool
    /// Keys and pages went in time; otherwise a thread that waits for the lower storage has yet to let go of them.
    package var isComplete: Bool
    /// So did what requests and replies lay in; otherwise one of some zone takes its time, and keeps its own until it is answered.
    package var areRequestsWiped: Bool
    /// What a read through a handle from before gave: "refused", "nothing to read", "no answer", or "READ", which must not be. Where
    /// there was no such handle: "nothing to read", "not found in time" (there may have been something), or "not looked for".
    package var canary: String
}

/// The revocation of a zone, from the decision to the proof. docs/REVOCATION.md has the order, and the reasons.
struct Revocation {
    let mount: VolumeMount
    let kernel: any KernelCaching
    let mountPoint: String
    /// st_dev of the mount's files; `nil` where it is not known: then there is no canary.
    let device: dev_t?

    /// What is slow is waited for so long, and two more for what is under way then. A lower storage that hangs must not keep the keys in memory.
    private static let patienceSeconds = 5.0
    private static let drainSeconds = patienceSeconds + 2
    private static let syncSeconds = 2.0
    private static let purgeSeconds = 10.0
    private static let wipeSeconds = 5.0
    /// A revocation takes no longer than its steps may, and the canary.
    static let longestSeconds = drainSeconds + 2 * purgeSeconds + 2 * wipeSeconds + 5

    /// Runs on a thread that serves no request and holds no lock.
    func run(_ zone: Zone, reason: Errno, cause: String) -> RevocationReport {
        let start = BootClock.now
        func elapsed() -> Double { ((BootClock.now - start) * 1e6).rounded() / 1e3 }
        let volume = mount.volume
        // Nothing that comes before the drain may wait for a file's lock or the lower storage without a deadline.
        let canary = Canary.open(of: zone.id, volume, in: mountPoint, device: device)
        let root = openRoot()

        // From here on programs are refused. First the attributes: without them the kernel takes no more writes into its cache.
        _ = zone.drain(reason)
        let isDrained = Deadline.run(seconds: Self.drainSeconds, mustRun: true) { drain(zone.id, root) } ?? false
        let drained = elapsed()

        zone.close(reason)
        // What came in between is known now, and nothing comes after.
        let last = volume.retainInodes(of: zone.id)
        let openFiles = volume.openCount(last)
        let isWiped =
            Deadline.run(seconds: Self.purgeSeconds, mustRun: true, late: { _ in volume.release(last) }) {
                Self.patiently(from: BootClock.now) { volume.forgetKeys(of: last) }
            }
        let closed = elapsed()
        let isPurged =
            Deadline.run(seconds: Self.purgeSeconds, mustRun: true) {
                // What a lookup under way has given the kernel since the drain.
                _ = kernel.expireNames()
                return kernel.purge(nodes(last), inPieces: true)
            } ?? false
        let purged = elapsed()
        // Not before: it waits for whoever serves a request, in any zone.
        let areWiped = Deadline.run(seconds: Self.wipeSeconds) { kernel.wipeRequests() } ?? false
        // Attributes of before may have come to the kernel after the purge, and let a write follow.
        let isPurgedAgain =
            Deadline.run(seconds: Self.wipeSeconds, mustRun: true) { kernel.purge(files(last), inPieces: true) }
            ?? false

        let outcome = canary.check()
        let count = last.count
        // The last reference to a file closes it, which may take as long as the lower storage wants. A wipe that is still under way gives
        // them back itself.
        if isWiped != nil, !PlainThread.detach({ volume.release(last) }) { volume.release(last) }
        return RevocationReport(
            zone: zone.id.rawValue, cause: cause, errno: reason.rawValue, at: Date.now, drainedMilliseconds: drained,
            closedMilliseconds: closed, purgedMilliseconds: purged, canaryMilliseconds: elapsed(), inodes: count,
            openFiles: openFiles, isDrained: isDrained && !volume.hasUnstored,
            isComplete: isWiped == true && isPurged && isPurgedAgain,
            areRequestsWiped: areWiped,
            canary: outcome)
    }

    /// Before the zone opens again: what came into the kernel's cache meanwhile, and could not be stored, goes. Runs as `run`.
    func purgeAgain(_ zone: ZoneID) {
        let volume = mount.volume
        let inodes = volume.retainInodes(of: zone)
        let release: @Sendable () -> Void = { volume.release(inodes) }
        _ = Deadline.run(seconds: Self.purgeSeconds, mustRun: true) { kernel.purge(files(inodes), inPieces: true) }
        if !PlainThread.detach(release) { release() }
    }

    /// Everything that was accepted is stored, and the kernel holds nothing dirty. What hangs keeps nothing else from it.
    private func drain(_ zone: ZoneID, _ root: Int32) -> Bool {
        let volume = mount.volume
        let start = BootClock.now
        let inodes = volume.retainInodes(of: zone)
        defer { volume.release(inodes) }
        kernel.invalidateAttributes(inodes.map(\.node))
        // What nobody writes to goes at once; the rest when it is stored. Directories have nothing to store, and may be held: they go when the
        // zone is closed.
        kernel.purge(files(volume.clean(inodes)), inPieces: false)
        let flushed = flush(root)
        kernel.purge(files(inodes), inPieces: false)
        // What was under way may have been added meanwhile.
        let all = volume.retainInodes(of: zone)
        defer { volume.release(all) }
        expireNames(all)
        let isStored = Self.patiently(from: start) {
            let isPurged = kernel.purge(files(all), inPieces: false)
            return volume.settle(all) && isPurged
        }
        return isStored && flushed
    }

    /// A file that is large, or slow, may take longer than `PatientWork` waits for one that hangs.
    private static func patiently(from start: Double, _ isDone: () -> Bool) -> Bool {
        repeat { if isDone() { return true } } while BootClock.now < start + patienceSeconds
        return false
    }

    private func files(_ inodes: [Inode]) -> [CachedNode] {
        inodes.filter { $0.kind != .directory }.map(mount.volume.cached)
    }

    /// Directories last: at those a program can hold the kernel up.
    private func nodes(_ inodes: [Inode]) -> [CachedNode] {
        files(inodes) + inodes.filter { $0.kind == .directory }.map(mount.volume.cached)
    }

    /// The mount's root, for syncfs(2); -1 where it cannot be had.
    private func openRoot() -> Int32 {
        guard let device else { return -1 }
        let mountPoint = mountPoint
        return Deadline.run(seconds: 0.1, late: { if $0 >= 0 { close($0) } }) {
            let root = linux_open(mountPoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
            var info = stat()
            guard root >= 0, fstat(root, &info) == 0, info.st_dev == device else {
                if root >= 0 { close(root) }
                return -1
            }
            return root
        } ?? -1
    }

    /// Has the kernel write what it holds, in large pieces; the purge then waits for it, and writes what is left page by page. One file of any
    /// zone whose lower storage hangs holds this up: it is not waited for long, and the purge does it for all others. Whether something was not
    /// stored, for lack of room say, only this tells: false when it was late. Without the root the purge alone tells.
    private func flush(_ root: Int32) -> Bool {
        guard root >= 0 else { return true }
        let failed = Deadline.run(seconds: Self.syncSeconds) {
            defer { close(root) }
            return syncfs(root)
        }
        return failed == 0
    }

    private func expireNames(_ inodes: [Inode]) {
        guard !kernel.expireNames() else { return }
        for inode in inodes {
            if let known = mount.volume.knownName(inode) { kernel.forget(known.name, in: known.parent) }
        }
    }
}
