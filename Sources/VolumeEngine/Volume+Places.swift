import CLinux
import Ciphers
import Storage
import VolumeFormat

/// On a volume with places, a file or directory is accepted under a name only if it says itself, authentically, that the name is
/// its own (FORMAT §13): contents and subtrees that somebody exchanged on the lower storage are noticed.
extension Volume {
    /// The place of an object that is called `name`, as stored, in a directory.
    func place(
        of object: UniqueID, in directory: DirectoryHandle, _ name: UnsafePointer<CChar>
    ) throws(Errno) -> PlaceList.Place {
        guard let key = directory.keys.places else { throw .io }
        let message = PlaceList.message(
            object: object, name: UnsafeRawBufferPointer(start: name, count: strlen(name)))
        do { return PlaceList.Place(code: try HMACSHA256.code(key: key.secret, message: message)) } catch { throw .io }
    }

    /// Gives an object that was just made, and that nobody else knows yet, its place.
    func storeFirstPlace(
        _ node: LowerNode, _ object: UniqueID, _ directory: DirectoryHandle, _ name: UnsafePointer<CChar>
    ) throws(Errno) {
        try storePlaces(
            node, PlaceList(object: object, places: [try place(of: object, in: directory, name)]))
    }

    /// Whether a list names an object under a name.
    private func isListed(
        _ list: PlaceList?, _ object: UniqueID, _ directory: DirectoryHandle, _ name: UnsafePointer<CChar>
    ) throws(Errno) -> Bool {
        guard let list, list.object == object else { return false }
        return list.places.contains(try place(of: object, in: directory, name))
    }

    /// Checks that an object with the UUID `object` is at home where it was opened. `node` names its lower inode.
    ///
    /// Without the place gate first: a rename that is on its way has stored the new place before, and takes the old one away after.
    /// Where the place is missing, once more with the gate, so that no rename is on its way. What has lost its name is at home nowhere.
    func verifyPlace(of inode: Inode, _ object: UniqueID, _ node: LowerNode) throws(Errno) {
        guard let location = inode.namedLocation else { return }
        let list = try readPlaces(node, inode.number)
        if try isListed(list, object, try handle(location.parent), location.name), inode.notePlaceVerified(at: location)
        {
            return
        }
        try withSteadyLocation(inode) { (directory, location) throws(Errno) in
            try requirePlace(inode.key, object, node, directory, location.name)
            _ = inode.notePlaceVerified(at: location)
        }
    }

    /// The same for an open file that is opened once more, perhaps by another name.
    func verifyPlace(ofOpen content: FileContent) throws(Errno) {
        guard !content.inode.state.withLock({ $0.isPlaceVerified }) else { return }
        let (object, descriptor) = content.lock.reading { (content.header.file, content.descriptor) }
        try verifyPlace(of: content.inode, object, LowerNode(descriptor))
    }

    /// Checks one of several names of a file, and gives its place; `nil` for a file that a crash left without a list.
    func verifyName(_ inode: Inode, in directory: Inode, _ name: [CChar]) throws(Errno) -> PlaceList.Place? {
        let directory = try handle(directory)
        let node = LowerNode(directory.descriptor, name)
        return try placeGate(inode.number).lock.withLock { (_) throws(Errno) in
            guard let list = try readPlaces(node, inode.number) else { return nil }
            try requirePlace(inode.key, list.object, node, directory, name)
            return try place(of: list.object, in: directory, name)
        }
    }

    /// True when an object says of more names than `own` that they are its own; with `isRepairing` it does so no longer.
    func hasOtherPlaces(
        _ inode: Inode, than own: [PlaceList.Place], isRepairing: Bool
    ) throws(Errno) -> Bool {
        let descriptor = try open(inode, flags: Int32(LINUX_O_PATH))
        return try placeGate(inode.number).lock.withLock { (_) throws(Errno) in
            guard let list = try readPlaces(LowerNode(descriptor), inode.number), !own.isEmpty,
                list.places.contains(where: { !own.contains($0) })
            else { return false }
            if isRepairing {
                try storePlaces(LowerNode(descriptor), PlaceList(object: list.object, places: own))
            }
            return true
        }
    }

    /// The only place of an object with one name.
    func onlyPlace(_ inode: Inode, _ object: UniqueID) throws(Errno) -> PlaceList.Place? {
        try withSteadyLocation(inode) { (directory, location) throws(Errno) in
            try place(of: object, in: directory, location.name)
        }
    }

    /// Under the place gate: says that an object is not at home; ESTALE if it is not there any more.
    private func requirePlace(
        _ key: InodeKey, _ object: UniqueID, _ node: LowerNode, _ directory: DirectoryHandle,
        _ name: UnsafePointer<CChar>
    ) throws(Errno) {
        let list = try readPlaces(node, key.number)
        if try isListed(list, object, directory, name) { return }
        let seen: stat
        do throws(Errno) { seen = try Lower.stat(directory.descriptor, name) } catch {
            throw error == .noEntry ? .stale : error
        }
        guard InodeKey(seen) == key else { throw .stale }
        guard !options.acceptsPlaces else { return try acceptPlace(seen, list, object, node, directory, name) }
        throw damaged(.name, key.number, list == nil ? "it does not say which names are its own" : "another's name")
    }

    /// The operator says that what is there is right.
    private func acceptPlace(
        _ info: stat, _ list: PlaceList?, _ object: UniqueID, _ node: LowerNode, _ directory: DirectoryHandle,
        _ name: UnsafePointer<CChar>
    ) throws(Errno) {
        let place = try place(of: object, in: directory, name)
        // Others that it has are looked at by those names.
        let isOnly = Inode.Kind(mode: info.st_mode) == .directory || info.st_nlink == 1
        let kept = isOnly || list?.object != object ? nil : list
        try storePlaces(node, kept?.adding(place) ?? PlaceList(object: object, places: [place]))
        acceptedPlaces.add(1, ordering: .relaxed)
    }

    /// The UUID of a file whose header a crash took, for a new header: it is in the list of places, so that all of the file's names
    /// stay its own. A file without a list either was made just before the crash; it gets one. `nil` for what has no name.
    func identityWithoutHeader(_ inode: Inode, _ descriptor: borrowing Descriptor) throws(Errno) -> UniqueID? {
        let node = LowerNode(descriptor)
        if let list = try readPlaces(node, inode.number) {
            try verifyPlace(of: inode, list.object, node)
            return list.object
        }
        let links = try Lower.stat(descriptor).st_nlink
        return try withSteadyLocation(inode) { (directory, location) throws(Errno) in
            // A second name is given only after the first is in the list.
            guard links <= 1 else { throw damaged(.name, inode.number, "it does not say which names are its own") }
            let object = try Self.randomID()
            if !options.readOnly { try storeFirstPlace(node, object, directory, location.name) }
            _ = inode.notePlaceVerified(at: location)
            return object
        }
    }

    /// Runs `body` under an inode's place gate, with its location and that directory's handle; `nil` for what has no name.
    @discardableResult
    func withSteadyLocation<R>(
        _ inode: Inode, _ body: (DirectoryHandle, Inode.Location) throws(Errno) -> R
    ) throws(Errno) -> R? {
        for _ in 0..<16 {
            guard let location = inode.namedLocation else { return nil }
            // Not under the gate: see `placeGate`.
            let directory = try handle(location.parent)
            let result: R? = try placeGate(inode.number).lock.withLock { (_) throws(Errno) in
                inode.namedLocation?.isSame(as: location) == true ? try body(directory, location) : nil
            }
            if let result { return result }
        }
        throw .stale
    }
}

extension Inode {
    /// Where it was seen last, unless its name is gone, or it is the root.
    var namedLocation: Location? { state.withLock { $0.pinned == nil ? $0.location : nil } }

    /// False when it has another place by now.
    func notePlaceVerified(at location: Location) -> Bool {
        state.withLock { state in
            guard state.location?.isSame(as: location) == true else { return false }
            state.isPlaceVerified = true
            return true
        }
    }
}

extension Inode.Location {
    func isSame(as other: Inode.Location) -> Bool { parent === other.parent && name == other.name }
}
