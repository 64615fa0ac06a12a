import CFuse
import CLinux
import Storage
import Synchronization
import VolumeEngine

/// What the kernel keeps of this mount, and how it is made to let go of it.
///
/// Called from threads that serve no request and hold no lock: the kernel waits for requests under way, and would wait for its own
/// caller. Nodes that the kernel has forgotten meanwhile are no error.
package final class KernelCache: KernelCaching, @unchecked Sendable {
    // libfuse guards its session. `end` waits for every caller before the session goes.
    private let session: OpaquePointer
    private let callers = Mutex<(count: Int, ended: Bool)>((0, false))
    private let pages = PagePurge()
    init(_ session: OpaquePointer) { self.session = session }

    package func invalidateAttributes(_ nodes: [UInt64]) {
        _ = work(nodes.count) { session, index in _ = fuse_lowlevel_notify_inval_inode(session, nodes[index], -1, 0) }
            .run()
    }

    package func purge(_ nodes: [CachedNode], inPieces: Bool) -> Bool {
        pages.purge(nodes, inPieces: inPieces) { [self] pieces, late in
            work(pieces.count, late: late) { session, index in
                for call in pieces[index].calls {
                    _ = fuse_lowlevel_notify_inval_inode(
                        session, pieces[index].node, off_t(call.start), off_t(call.length))
                }
            }
        }
    }

    package func wipeRequests() -> Bool {
        guard enter() else { return true }
        defer { leave() }
        // One that is late holds its own request alone, and zeroes it when it has answered.
        return lethefs_wipe_requests() == 0
    }

    package func expireNames() -> Bool {
        guard enter() else { return true }
        defer { leave() }
        return lethefs_notify_increment_epoch(session) == 0
    }

    package func forget(_ name: [UInt8], in parent: UInt64) {
        guard enter() else { return }
        defer { leave() }
        name.withUnsafeBufferPointer { name in
            name.withMemoryRebound(to: CChar.self) { text in
                guard let start = text.baseAddress else { return }
                _ = fuse_lowlevel_notify_inval_entry(session, parent, start, text.count)
            }
        }
    }

    /// From now on calls do nothing; true when none is under way any more, false when `seconds` have passed before that.
    func end(withinSeconds seconds: Int) -> Bool {
        for _ in 0..<(seconds * 1000) {
            let isIdle = callers.withLock { callers in
                callers.ended = true
                return callers.count == 0
            }
            if isIdle { return true }
            usleep(1000)
        }
        return false
    }

    private func enter() -> Bool {
        callers.withLock { callers in
            guard !callers.ended else { return false }
            callers.count += 1
            return true
        }
    }

    private func leave() { callers.withLock { $0.count -= 1 } }

    private struct Session: @unchecked Sendable {
        let pointer: OpaquePointer
    }

    /// Each item counts as a caller of its own: one that hangs goes on when the others are done.
    private func work(
        _ count: Int, late: @escaping @Sendable (Int) -> Void = { _ in },
        _ body: @escaping @Sendable (OpaquePointer, Int) -> Void
    ) -> PatientWork {
        let session = Session(pointer: session)
        return PatientWork(count, late: late) { [self] index in
            guard enter() else { return }
            defer { leave() }
            body(session.pointer, index)
        }
    }
}
