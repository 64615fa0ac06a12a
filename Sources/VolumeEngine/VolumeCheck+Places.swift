import CLinux
import Storage
import VolumeFormat

/// On a volume with places: whether each name is its object's own, and whether a crash left one too many.
extension VolumeCheck {
    /// What is looked at by itself; `nil` for what has one name, which is looked at when it is opened.
    func link(_ entry: Entry, _ item: DirectoryStream.Item, in directory: Inode) -> LinkName? {
        guard volume.hasPlaces, entry.inode.kind == .regular, entry.attributes.st_nlink > 1, let stored = item.stored
        else { return nil }
        volume.table.retain(directory)
        return LinkName(directory: directory, name: stored.map(CChar.init(bitPattern:)) + [0])
    }

    /// Opens a file with several names by this one of them, so that it is this one that is looked at.
    func opening<R>(link inode: Inode, _ path: Path, _ open: () throws(Errno) -> R) throws(Errno) -> R {
        guard let link = path.link else { return try open() }
        let isListed = try checkLink(inode, link, path)
        link.name.withUnsafeBufferPointer { name in
            if let name = name.baseAddress { volume.relocate(inode, to: link.directory, name) }
        }
        let result = try open()
        // It had no list, and got one.
        if !isListed, volume.options.acceptsPlaces { _ = try checkLink(inode, link, path) }
        return result
    }

    /// Looks at one of a file's names, and after the last of them for places that are not among them. False where there is no list.
    private func checkLink(_ inode: Inode, _ link: LinkName, _ path: Path) throws(Errno) -> Bool {
        guard let place = try volume.verifyName(inode, in: link.directory, link.name) else { return false }
        guard isAlone else { return true }
        let links = try volume.attributes(inode).st_nlink
        let own = linkedPlaces.withLock { places -> [PlaceList.Place]? in
            places[inode.number, default: []].append(place)
            return places[inode.number]?.count == Int(links) ? places.removeValue(forKey: inode.number) : nil
        }
        if let own { try trim(inode, own, path) }
        return true
    }

    /// The same for an object with one name, which was opened by it.
    func checkPlaces(_ inode: Inode, _ object: UniqueID, _ path: Path) throws(Errno) {
        guard volume.hasPlaces, isAlone, path.link == nil, let own = try volume.onlyPlace(inode, object) else { return }
        try trim(inode, [own], path)
    }

    private func trim(_ inode: Inode, _ own: [PlaceList.Place], _ path: Path) throws(Errno) {
        guard try volume.hasOtherPlaces(inode, than: own, isRepairing: options.repair) else { return }
        count { $0.leftovers.append(Leftover(path: path.shown, kind: .place, repaired: options.repair)) }
    }
}
