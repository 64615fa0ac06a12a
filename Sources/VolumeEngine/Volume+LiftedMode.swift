import CLinux
import Storage

/// A plain user's own file or directory whose mode keeps even the owner out (0400, 0200, 0000): the kernel has checked the program's
/// access already, so the mode is lifted for the moment.
extension Volume {
    /// Opens it; `nil` where it is another's.
    func openAgainstMode(_ node: Descriptor, flags: Int32) throws(Errno) -> Descriptor? {
        try withLiftedMode(node) { () throws(Errno) in try Lower.open(path: node.procPath, flags: flags) }
    }

    /// Runs `body`, and again with the mode lifted where that is what kept a plain user out: where the owner lacks some of `bits`. `node` is
    /// asked for only then.
    @inline(__always)
    func againstMode<R>(
        _ node: @autoclosure () throws(Errno) -> Descriptor, needing bits: mode_t? = nil,
        _ body: () throws(Errno) -> R
    ) throws(Errno) -> R {
        do throws(Errno) { return try body() } catch {
            guard error == .access, !isPrivileged, let result = try withLiftedMode(try node(), needing: bits, body)
            else {
                throw error
            }
            return result
        }
    }

    /// Runs `body` meanwhile; `nil` where it is another's. A mode that keeps its owner from nothing (of `bits`) stays. `body` lifts no other.
    func withLiftedMode<R>(
        _ node: Descriptor, needing bits: mode_t? = nil, _ body: () throws(Errno) -> R
    ) throws(Errno) -> R? {
        var result: Result<R, Errno>?
        // Two at once would take the lifted mode for its own.
        try lifting.withLock { (_) throws(Errno) in
            let info = try Lower.stat(node)
            guard info.st_uid == geteuid() else { return }
            let mode = info.st_mode & 0o7777
            let isDirectory = info.st_mode & mode_t(S_IFMT) == mode_t(S_IFDIR)
            let all: mode_t = isDirectory ? 0o700 : 0o600
            let needed = bits ?? all
            // As it is: somebody has changed it meanwhile, or it is not the mode that keeps him out.
            guard mode & needed != needed else {
                result = Result { () throws(Errno) in try body() }
                return
            }
            try Lower.changeMode(node, to: mode | all)
            result = Result { () throws(Errno) in try body() }
            try Lower.changeMode(node, to: mode)
        }
        return try result?.get()
    }

    /// Runs `body`, which changes modes, while none is lifted.
    func withOwnMode(_ body: () throws(Errno) -> Void) throws(Errno) {
        if isPrivileged { return try body() }
        try lifting.withLock { (_) throws(Errno) in try body() }
    }
}
