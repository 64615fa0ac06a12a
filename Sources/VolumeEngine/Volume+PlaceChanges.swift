import CLinux
import Storage
import VolumeFormat

/// What changes the names of an object changes what it says of them. A new place is stored before the name is there, an old one is
/// taken away after the name is gone: whatever a crash cuts off, no name lacks its place (FORMAT §13).
extension Volume {
    /// link(2) of a regular file by `action`. `node` is the lower inode.
    func gainingPlace(
        _ inode: Inode, _ node: Descriptor, _ directory: DirectoryHandle, _ name: LowerName,
        _ action: () throws(Errno) -> Void
    ) throws(Errno) {
        guard hasPlaces, inode.kind == .regular else { return try action() }
        let lower = LowerNode(node)
        let object = try provenIdentity(inode, lower)
        let place = try place(of: object, in: directory, name.text)
        try placeGate(inode.number).lock.withLock { (_) throws(Errno) in
            guard let list = try readPlaces(lower, inode.number), list.object == object else {
                throw damaged(.name, inode.number, "it does not say which names are its own")
            }
            // A rename needs room for one more.
            guard list.places.count < PlaceList.maximumCount - 1 else { throw .tooManyLinks }
            try storePlaces(lower, list.adding(place))
            do throws(Errno) { try action() } catch {
                // Unless it is not known what came of it. One that stays is one place too many: see `PlaceLoss.store`.
                if error == .exists || error == .noSpace || error == .tooManyLinks, !list.places.contains(place) {
                    try? storePlaces(lower, list)
                }
                throw error
            }
        }
    }

    /// An object's UUID, which is about to be signed for another name: by a name that is its own, or by its header.
    private func provenIdentity(_ inode: Inode, _ node: LowerNode) throws(Errno) -> UniqueID {
        if inode.namedLocation != nil, let list = try readPlaces(node, inode.number) {
            try verifyPlace(of: inode, list.object, node)
            return list.object
        }
        // Opening it gives one to a file that a crash left without a list.
        let content = try openContent(inode, forWriting: false)
        defer { closeContent(content) }
        return content.lock.reading { content.header.file }
    }

    /// Takes one of a file's names away by `action`.
    func losingPlace(
        _ info: stat, _ directory: DirectoryHandle, _ name: LowerName, _ action: () throws(Errno) -> Void
    ) throws(Errno) {
        guard let loss = try PlaceLoss(info, directory, name, self) else { return try action() }
        try placeGate(UInt64(info.st_ino)).lock.withLock { (_) throws(Errno) in
            try action()
            loss.store()
        }
    }

    /// Runs `action` under the place gates of one object, or of two.
    fileprivate func withPlaceGates(
        _ one: stat, _ other: stat?, _ action: () throws(Errno) -> Void
    ) throws(Errno) {
        // Lower order of the gates first; the same one only once.
        let indices = Set([one.st_ino & 63, (other ?? one).st_ino & 63]).sorted()
        try placeGate(UInt64(indices[0])).lock.withLock { (_) throws(Errno) in
            guard indices.count > 1 else { return try action() }
            try placeGate(UInt64(indices[1])).lock.withLock { (_) throws(Errno) in try action() }
        }
    }
}

/// A file with several names that is about to lose one.
private struct PlaceLoss {
    private let volume: Volume
    private let info: stat
    private let directory: DirectoryHandle
    private let name: LowerName
    private let node: Descriptor

    /// `nil` for what has no place, or goes with its last name. Before the name goes: the file is found by it.
    init?(_ info: stat, _ directory: DirectoryHandle, _ name: LowerName, _ volume: Volume) throws(Errno) {
        guard volume.hasPlaces, info.st_nlink > 1, Inode.Kind(mode: info.st_mode) == .regular else { return nil }
        self.volume = volume
        self.info = info
        self.directory = directory
        self.name = name
        node = try Lower.open(directory.descriptor, name.text, flags: Int32(LINUX_O_PATH))
    }

    /// The name is gone, and nothing that fails here brings it back: a place that stays says that the file may come back there, as
    /// after a crash. `check --repair` finds it.
    func store() {
        let node = LowerNode(node)
        guard let list = try? volume.readPlaces(node, UInt64(info.st_ino)),
            let place = try? volume.place(of: list.object, in: directory, name.text),
            case let left = list.removing(place), !left.places.isEmpty, left != list
        else { return }
        try? volume.storePlaces(node, left)
    }
}

/// What a rename does to the places of the objects that it moves or replaces.
struct PlaceMoves {
    struct End {
        let directory: DirectoryHandle
        let name: LowerName

        var node: LowerNode { LowerNode(directory.descriptor, name.text) }
    }

    let volume: Volume
    let from: End
    let to: End

    /// Runs `action`, which renames what is at `from` to `to`. An exchange moves `target`, too; so does one that replaces a directory,
    /// for the time until it is removed.
    func around(
        _ source: stat, _ target: stat?, isExchange: Bool, _ action: () throws(Errno) -> Void
    ) throws(Errno) {
        try volume.withPlaceGates(source, target) { () throws(Errno) in
            let isBack = isExchange || target.map { Inode.Kind(mode: $0.st_mode) == .directory } ?? false
            let loss =
                isBack
                ? nil
                : try target.flatMap { (target) throws(Errno) in
                    try PlaceLoss(target, to.directory, to.name, volume)
                }
            let forth = try Move(source, from, to, volume)
            var back: Move?
            do throws(Errno) {
                if let target, isBack { back = try Move(target, to, from, volume) }
                try action()
            } catch {
                forth?.undo()
                back?.undo()
                throw error
            }
            forth?.finish()
            if isExchange { back?.finish() }
            loss?.store()
        }
    }

    /// One object that goes from one name to another: its list before, which it keeps if it does not go, and after.
    private struct Move {
        private let volume: Volume
        private let key: InodeKey
        private let from: End
        private let to: End
        private let before: PlaceList
        private let after: PlaceList

        /// Stores a list with both places. `nil` for what has none.
        init?(_ info: stat, _ from: End, _ to: End, _ volume: Volume) throws(Errno) {
            let kind = Inode.Kind(mode: info.st_mode)
            guard kind == .regular || kind == .directory else { return nil }
            let number = UInt64(info.st_ino)
            guard let list = try volume.readPlaces(from.node, number) else {
                // A file that was made just before a crash gets its place when it is opened.
                guard kind == .regular, info.st_size == 0, info.st_nlink == 1, volume.isAfterCrash || volume.isDirty
                else { throw volume.damaged(.name, number, "it does not say which names are its own") }
                return nil
            }
            let old = try volume.place(of: list.object, in: from.directory, from.name.text)
            let new = try volume.place(of: list.object, in: to.directory, to.name.text)
            // Otherwise another's UUID could be had signed for a name that it never had.
            guard list.places.contains(old) else { throw volume.damaged(.name, number, "another's name") }
            self.volume = volume
            key = InodeKey(info)
            self.from = from
            self.to = to
            before = list
            let isOnly = kind == .directory || info.st_nlink == 1
            after = isOnly ? PlaceList(object: list.object, places: [new]) : list.removing(old).adding(new)
            let both = isOnly ? after.adding(old) : list.adding(new)
            try volume.storePlaces(from.node, both)
        }

        /// As `PlaceLoss.store`: what stays is a place too many.
        func finish() { try? volume.storePlaces(to.node, after) }

        /// It failed; but an action of several steps may have failed after the object had gone.
        func undo() {
            guard let info = try? Lower.stat(from.directory.descriptor, from.name.text), InodeKey(info) == key else {
                return
            }
            try? volume.storePlaces(from.node, before)
        }
    }
}
