import Storage
import Synchronization
import VolumeFormat

/// What a revocation takes from the engine. Its order is ControlPlane's; docs/REVOCATION.md has the whole.
extension Volume {
    /// Inodes of a zone that the kernel may know, each with one more reference; `release` gives them back.
    package func retainInodes(of zone: ZoneID) -> [Inode] {
        table.retainAll().filter { inode in
            if inode.belongs(to: zone) || inode.state.withLock({ $0.handle?.zone == zone }) { return true }
            table.release(inode)
            return false
        }
    }

    package func release(_ inodes: [Inode]) { for inode in inodes { table.release(inode) } }

    /// Those among these inodes of which the kernel holds nothing that is not stored: no program that could write has them open.
    package func clean(_ inodes: [Inode]) -> [Inode] {
        inodes.filter { !($0.state.withLock { $0.content }?.mayBeDirty ?? false) }
    }

    /// Programs may use what belongs to the inode's zone.
    package func isOpen(_ inode: Inode) -> Bool { zones.find(inode.zone)?.isOpen ?? false }

    /// Stores headers and sizes of a draining zone's open files, so that nothing about them is left to write. False when some hang in the
    /// lower storage: they hold up no others.
    @discardableResult
    package func settle(_ inodes: [Inode]) -> Bool {
        let open = inodes.filter { $0.state.withLock { $0.content != nil } }
        return forEach(open) { [self] inode in
            // The gate keeps the last handle's end from coming between.
            gate(inode).lock.withLock { _ in
                guard let content = inode.state.withLock({ $0.content }) else { return }
                content.lock.writing { do throws(Errno) { try content.settle() } catch { markDirty() } }
            }
        }
    }

    /// True when it was done for all; those that hang keep their inodes.
    private func forEach(
        _ inodes: [Inode], late: @escaping @Sendable () -> Void = {}, _ body: @escaping @Sendable (Inode) -> Void
    ) -> Bool {
        for inode in inodes { table.retain(inode) }
        let work = PatientWork(inodes.count, late: { _ in late() }) { [self] index in
            body(inodes[index])
            table.release(inodes[index])
        }
        return work.run() == 0
    }

    /// Takes the keys of a closed zone out of memory: of files, of directories, in cipher contexts; and plaintext in buffers.
    /// Waits for the operations that have them, and for those last: one that hangs in the lower storage keeps its own file's alone, until
    /// it ends; false then.
    @discardableResult
    package func forgetKeys(of inodes: [Inode]) -> Bool {
        for inode in inodes { inode.state.withLock { $0.handle = nil } }
        let inUse = inodes.filter { !forgetKeysAtOnce(of: $0) }
        wipeWorkspace()
        guard !inUse.isEmpty else { return true }
        let isDone = forEach(inUse, late: { [self] in wipeWorkspace() }) { [self] inode in
            gate(inode).lock.withLock { _ in forgetKeysInGate(of: inode) }
        }
        wipeWorkspace()
        return isDone
    }

    private func wipeWorkspace() {
        aead.wipe()
        buffers.wipe()
    }

    /// False when an operation of the file is under way, or something about it has to be stored first.
    private func forgetKeysAtOnce(of inode: Inode) -> Bool {
        gate(inode).lock.withLockIfAvailable { _ in
            guard let content = inode.state.withLock({ $0.content }) else { return true }
            return content.lock.writingIfAvailable { !content.hasToSettle && content.forgetKeys() } ?? false
        } ?? false
    }

    private func forgetKeysInGate(of inode: Inode) {
        guard let content = inode.state.withLock({ $0.content }) else { return }
        if !content.lock.writing(content.forgetKeys) { markDirty() }
    }

    /// Files and directories among these inodes whose keys are in memory: none, after a revocation.
    package func keysHeld(by inodes: [Inode]) -> Int {
        inodes.count { inode in
            let (handle, content) = inode.state.withLock { ($0.handle, $0.content) }
            return handle != nil || content?.hasKeys.load(ordering: .acquiring) == true
        }
    }

    /// What the kernel may hold of an inode.
    package func cached(_ inode: Inode) -> CachedNode {
        CachedNode(number: inode.node, size: inode.state.withLock { $0.content }?.size ?? 0)
    }

    /// Open files among these inodes.
    package func openCount(_ inodes: [Inode]) -> Int {
        inodes.reduce(0) { $0 + ($1.state.withLock { $0.content == nil } ? 0 : 1) }
    }
}
