import CLinux
import Storage

/// The times that programs gave a file, while a sweep writes to it.
extension FileContent {
    /// A program has set times: these are the ones to keep. The caller holds the gate.
    func noteTimes() throws(Errno) {
        try lock.writing { () throws(Errno) in
            guard heldTimes != nil else { return }
            let info = try Lower.stat(descriptor)
            heldTimes = HeldTimes(access: info.st_atim, modification: info.st_mtim, changes: changes.count)
        }
    }

    /// From here on the lower file's times are the sweep's. Returns what the lower file is like. The caller holds the gate.
    func holdTimes() throws(Errno) -> stat {
        try lock.writing { () throws(Errno) in
            let info = try Lower.stat(descriptor)
            if heldTimes == nil {
                heldTimes = HeldTimes(access: info.st_atim, modification: info.st_mtim, changes: changes.count)
            }
            return info
        }
    }

    /// Gives the file the times that programs gave it, unless one has written since. The caller holds the gate.
    func releaseTimes() {
        lock.writing {
            guard let held = heldTimes else { return }
            heldTimes = nil
            guard held.changes == changes.count else { return }
            try? Lower.changeTimes(descriptor, access: held.access, modification: held.modification)
        }
    }
}
