import CLinux
import Storage
import VolumeFormat

/// Page trees of files that nobody met, and where such files may be.
extension VolumeCheck {
    /// A crash came between the end of a file's last name and theirs; or the file lies where the walk does not go.
    func checkTrees() {
        guard isAlone, let trees = volume.trees, sawAll else { return }
        let path = Path(text: "/\(ReservedName.volumeDirectory)/\(VolumeFiles.trees)", name: [], target: nil)
        let met = metFiles.withLock { $0 }
        let isHeld = holdsOthers
        _ = attempt {
            for name in try lowerNames(trees.directory, where: { _ in true }) {
                guard let file = UniqueID(name), !met.contains(file) else { continue }
                if isHeld {
                    count { $0.leftovers.append(Leftover(path: path.shown, kind: .heldTree, repaired: false)) }
                } else {
                    leftOver(path, .tree) { () throws(Errno) in try Lower.unlink(trees.directory, name) }
                }
            }
        }
    }

    /// A repair of the lower storage puts files without a name into the `lost+found` at the top of its file system, which may lie above
    /// the volume.
    func checkLostAndFoundAbove() {
        guard isAlone else { return }
        let failure = attempt {
            var directory = try Lower.open(volume.lowerRoot, "..", flags: Int32(LINUX_O_PATH) | O_DIRECTORY)
            let device = try Lower.stat(volume.lowerRoot).st_dev
            var last: ino_t = 0
            while true {
                let info = try Lower.stat(directory)
                // The root is above itself.
                guard info.st_dev == device, info.st_ino != last else { return }
                last = info.st_ino
                noteOthers(directory, ReservedName.lostAndFound)
                directory = try Lower.open(directory, "..", flags: Int32(LINUX_O_PATH) | O_DIRECTORY)
            }
        }
        if failure != nil { count { $0.holdsOthers = true } }
    }

    /// Notes whether a directory that the walk does not go into has entries. Of one that cannot be read, nobody knows.
    func noteOthers(_ directory: Descriptor, _ name: String) {
        var holds = false
        let failure = attempt {
            do throws(Errno) {
                let inside = try Lower.open(directory, name, flags: O_RDONLY | O_DIRECTORY)
                let names = try lowerNames(inside) { _ in true }
                holds = names.contains { $0 != ReservedName.directoryHeader }
            } catch { if error != .noEntry { throw error } }
        }
        if holds || failure != nil { count { $0.holdsOthers = true } }
    }
}
