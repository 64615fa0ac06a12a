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

    /// Stores headers and sizes of a draining zone's open files, so that nothing about them is left to write.
    package func settle(_ inodes: [Inode]) {
        for inode in inodes {
            // The gate keeps the last handle's end from coming between.
            gate(inode).lock.withLock { _ in
                guard let content = inode.state.withLock({ $0.content }) else { return }
                content.lock.writing { do throws(Errno) { try content.settle() } catch { markDirty() } }
            }
        }
    }

    /// Takes the keys of a closed zone out of memory: of files, of directories, in cipher contexts; and plaintext in buffers.
    /// Waits for the operations that have them, and for those last: one that hangs in the lower storage keeps its own file's alone.
    package func forgetKeys(of inodes: [Inode]) {
        for inode in inodes { inode.state.withLock { $0.handle = nil } }
        let inUse = inodes.filter { !forgetKeysAtOnce(of: $0) }
        aead.wipe()
        buffers.wipe()
        guard !inUse.isEmpty else { return }
        for inode in inUse { gate(inode).lock.withLock { _ in forgetKeysInGate(of: inode) } }
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

    /// Open files among these inodes.
    package func openCount(_ inodes: [Inode]) -> Int {
        inodes.reduce(0) { $0 + ($1.state.withLock { $0.content == nil } ? 0 : 1) }
    }
}
