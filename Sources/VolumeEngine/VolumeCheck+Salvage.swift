import CLinux
import Storage
import VolumeFormat

extension VolumeCheck {
    /// The directory into which the entries of `inode` are copied.
    func salvage(directory inode: Inode, _ path: Path) -> SalvageDirectory? {
        guard let parent = path.target else { return nil }
        guard !path.name.isEmpty else { return parent }
        return copied(path) { () throws(Errno) in try parent.directory(path.name, try volume.attributes(inode)) }
    }

    func salvage(file inode: Inode, _ path: Path) throws(Errno) -> SalvageDirectory.File? {
        guard let parent = path.target else { return nil }
        let info = try volume.attributes(inode)
        let file = copied(path, countIt: false) { () throws(Errno) in try parent.file(path.name, info) }
        if file != nil, info.st_nlink > 1 {
            let place = SalvageDirectory.Place(directory: parent, name: SalvageDirectory.terminated(path.name))
            salvagedLinks.made(inode.number, at: place)
        }
        return file
    }

    func salvage(link inode: Inode, _ path: Path, _ target: [UInt8]) {
        guard let parent = path.target else { return }
        copied(path) { () throws(Errno) in try parent.link(path.name, target, try volume.attributes(inode)) }
    }

    func salvage(special inode: Inode, _ path: Path) {
        guard let parent = path.target else { return }
        do throws(Errno) {
            let info = try volume.attributes(inode)
            let part = SalvageDirectory.isDevice(info) ? "a device node, which nothing authenticates: " : ""
            copied(path, part) { () throws(Errno) in try parent.special(path.name, info) }
        } catch { conclude(path, error) }
    }

    /// Runs `copy`; but a file that was copied under another of its names gets this one as a hard link.
    func salvagingOnce(_ inode: Inode, _ path: Path, _ copy: () throws(Errno) -> Void) throws(Errno) {
        guard let parent = path.target, inode.kind == .regular, try volume.attributes(inode).st_nlink > 1 else {
            return try copy()
        }
        guard let place = salvagedLinks.begin(inode.number) else {
            defer { salvagedLinks.giveUp(inode.number) }
            return try copy()
        }
        let linked: Void? = copied(path) { () throws(Errno) in
            try Lower.link(
                place.directory.descriptor, place.name, parent.descriptor, SalvageDirectory.terminated(path.name))
        }
        if linked == nil { try copy() }
    }

    /// Ends the copy of a file of so many bytes of plaintext.
    func salvaged(_ file: SalvageDirectory.File, _ path: Path, size: UInt64) {
        copied(path) { () throws(Errno) in try file.finish(size: size) }
    }

    func salvage(attribute name: String, _ path: Path, _ set: () throws(Errno) -> Void) {
        copied(path, "attribute \(name): ", countIt: false, set)
    }

    /// Storage that tells only at the end that it was full, or failed.
    func syncSalvage() {
        guard let target else { return }
        copied(Path(text: "", name: [], target: nil), countIt: false) { () throws(Errno) in try target.sync() }
    }

    /// Copies one entry; that it could not be written is a finding of its own.
    @discardableResult
    private func copied<R>(
        _ path: Path, _ part: String = "", countIt: Bool = true, _ body: () throws(Errno) -> R
    ) -> R? {
        do throws(Errno) {
            let result = try body()
            if countIt { count { $0.salvaged += 1 } }
            return result
        } catch {
            let finding = Finding(path: path.shown, object: "salvage", page: nil, reason: part + error.message)
            count { $0.findings.append(finding) }
            return nil
        }
    }
}
