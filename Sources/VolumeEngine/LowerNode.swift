import CLinux
import Storage
import VolumeFormat

/// A file or directory on the lower storage whose list of places is read and stored: by a descriptor of it, or by a directory and
/// a name, without opening it. Valid as long as those descriptors are.
struct LowerNode {
    private let path: String
    private let follow: Bool

    init(_ descriptor: borrowing Descriptor) {
        path = descriptor.procPath
        follow = true
    }

    init(_ directory: borrowing Descriptor, _ name: UnsafePointer<CChar>) {
        path = directory.procPath + "/" + String(cString: name)
        follow = false
    }

    private static let usualSize = 256

    /// The bytes of the attribute; `nil` where there is none.
    fileprivate func read() throws(Errno) -> [UInt8]? {
        do throws(Errno) {
            do throws(Errno) {
                return try Lower.getAttribute(
                    path: path, PlaceList.attribute, expecting: Self.usualSize, follow: follow)
            } catch {
                guard error == .range else { throw error }
                return try Lower.getAttribute(path: path, PlaceList.attribute, follow: follow)
            }
        } catch {
            guard error == .noData else { throw error }
            return nil
        }
    }

    fileprivate func write(_ bytes: [UInt8]) throws(Errno) {
        try bytes.withUnsafeBufferPointer { (bytes) throws(Errno) in
            try Lower.setAttribute(
                path: path, PlaceList.attribute, UnsafeRawBufferPointer(bytes), flags: 0, follow: follow)
        }
    }

    /// The mode of a plain user's own object may keep even him out.
    fileprivate func againstMode<R>(_ volume: Volume, _ body: () throws(Errno) -> R) throws(Errno) -> R {
        let flags = Int32(LINUX_O_PATH) | (follow ? 0 : O_NOFOLLOW)
        return try volume.againstMode(try Lower.open(path: path, flags: flags), body)
    }
}

extension Volume {
    /// What an object says of its names; `nil` where it says nothing. `number` is its inode's, for reports.
    func readPlaces(_ node: LowerNode, _ number: UInt64) throws(Errno) -> PlaceList? {
        let bytes = try node.againstMode(self) { () throws(Errno) in try node.read() }
        guard let bytes else { return nil }
        do { return try bytes.withUnsafeBytes { try PlaceList(parsing: $0) } } catch {
            throw damaged(.name, number, "malformed list of places")
        }
    }

    /// Stores it. EMLINK where the object has more names than the lower file system has room for.
    func storePlaces(_ node: LowerNode, _ list: PlaceList) throws(Errno) {
        guard list.places.count <= PlaceList.maximumCount else { throw .tooManyLinks }
        let bytes = list.encoded
        do throws(Errno) {
            try node.againstMode(self) { () throws(Errno) in try node.write(bytes) }
        } catch {
            // ext4 says ENOSPC both where an inode's attributes fill their block and where the disk is full.
            guard error == .noSpace, list.places.count > Self.placesThatAlwaysFit,
                try Lower.statistics(lowerRoot).f_bavail > 0
            else { throw error }
            throw .tooManyLinks
        }
    }

    /// Below that, the attributes that programs gave the object are what took the room.
    private static let placesThatAlwaysFit = 16
}
