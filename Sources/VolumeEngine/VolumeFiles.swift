import CLinux
import Ciphers
import KeyManagement
import Storage
import VolumeFormat

/// Why a volume could not be made, read or mounted.
package enum VolumeError: Error, Sendable, Equatable {
    /// A call to the lower storage failed, while doing what the text says.
    case lower(Errno, String)
    /// There is no `.lethefs/volume`.
    case notVolume
    /// Something is there already.
    case alreadyVolume
    case notEmpty
    /// The lower file system has no extended attributes in which a volume with places keeps them.
    case noUserAttributes
    /// Another daemon has it mounted; the text is what that one left in the lock file.
    case locked(String)
    case format(FormatError, String)
    case keyring(KeyringError)
    /// A file of the volume's own directory is not authentic.
    case notAuthentic(String)
    case missing(String)
    /// The manifest at the path cannot be used, and why.
    case manifest(String, String)
    /// The volume has as many zones as it may.
    case tooManyZones
    /// A key version still protects so many objects; the paths are the first ones'.
    case stillProtects(KeyVersion, count: UInt64, paths: [String])
    /// Not everything is known to be wrapped by the newest KEK version yet.
    case rewrapPending
    /// No version key guards this KEK version: old copies of the keyring open it under the CMK, whatever happens to this one.
    case unguarded(KeyVersion)
    /// A KEK version that was destroyed still opens, or it could not be shown that it does not.
    case notDestroyed(KeyVersion)
    /// Some objects could not be done; the texts name the first ones.
    case incomplete(failed: UInt64, [String])
    /// A flush of the lower storage failed in this mount: no key is let go in it any more.
    case lostFlush
    /// Files are being deleted in that zone to be shredded.
    case shredding(ZoneID)
    /// A tree cannot go to another zone.
    case unassignable(VolumeMount.Unassignable)
    case cipher
}

/// The volume's own directory, `.lethefs` in the lower root, and the files in it.
package struct VolumeFiles: Sendable {
    package static let description = "volume"
    package static let state = "state"
    package static let lock = "lock"
    package static let zones = "zones"
    package static let links = "links"
    package static let trees = "trees"

    package let lowerRoot: Descriptor
    package let directory: Descriptor

    /// Opens an existing volume's directory.
    package init(lower: String) throws(VolumeError) {
        do { lowerRoot = try Lower.open(path: lower, flags: O_RDONLY | O_DIRECTORY) } catch {
            throw .lower(error, "opening \(lower)")
        }
        do { directory = try Lower.open(lowerRoot, ReservedName.volumeDirectory, flags: O_RDONLY | O_DIRECTORY) } catch
        {
            if error == .noEntry || error == .notDirectory || error == .loop { throw .notVolume }
            throw .lower(error, "opening \(lower)/\(ReservedName.volumeDirectory)")
        }
    }

    init(lowerRoot: Descriptor, directory: Descriptor) {
        self.lowerRoot = lowerRoot
        self.directory = directory
    }

    func read(_ name: String, limit: Int) throws(VolumeError) -> [UInt8] {
        do { return try AtomicFile.read(directory, name, limit: limit) } catch {
            if error == .noEntry { throw .missing(name) }
            throw .lower(error, "reading \(ReservedName.volumeDirectory)/\(name)")
        }
    }

    func write(_ name: String, _ bytes: [UInt8]) throws(VolumeError) {
        do { try AtomicFile.replace(directory, name, with: bytes) } catch {
            throw .lower(error, "writing \(ReservedName.volumeDirectory)/\(name)")
        }
    }

    /// The keyring of a zone, not yet authenticated.
    package func keyring(_ zone: ZoneID) throws(VolumeError) -> ZoneKeyring {
        let name = "\(Self.zones)/\(zone.rawValue)"
        let bytes: [UInt8]
        do { bytes = try read(name, limit: ZoneKeyring.maximumEncodedSize) } catch {
            if case .missing = error, zone == .root { throw .missing(name) }
            throw error
        }
        do { return try ZoneKeyring(parsing: bytes) } catch { throw .format(error, name) }
    }

    /// The volume's description, not yet authenticated.
    package func readDescription() throws(VolumeError) -> (value: VolumeDescription, sealed: SealedFile) {
        let bytes: [UInt8]
        do { bytes = try read(Self.description, limit: VolumeDescription.maximumEncodedSize) } catch {
            if case .missing = error { throw .notVolume }
            throw error
        }
        do {
            let sealed = try SealedFile(parsing: bytes, of: "volume description")
            let value = try sealed.body.withUnsafeBufferPointer { (body) throws(FormatError) in
                try VolumeDescription(parsing: UnsafeRawBufferPointer(body))
            }
            return (value, sealed)
        } catch { throw .format(error, Self.description) }
    }

    func readState(_ keys: ZoneKeys) throws(VolumeError) -> VolumeState {
        let bytes = try read(Self.state, limit: 4096)
        let sealed: SealedFile
        let value: VolumeState
        do {
            sealed = try SealedFile(parsing: bytes, of: "volume state")
            value = try sealed.body.withUnsafeBufferPointer { (body) throws(FormatError) in
                try VolumeState(parsing: UnsafeRawBufferPointer(body))
            }
        } catch { throw .format(error, Self.state) }
        try Self.authenticate(sealed, keys, Self.state)
        guard value.volume == keys.volume else { throw .notAuthentic(Self.state) }
        return value
    }

    func writeState(_ state: VolumeState, _ keys: ZoneKeys) throws(VolumeError) {
        try write(Self.state, try Self.seal(state.authenticatedBytes, keys))
    }

    /// Checks that a file was written by someone who had the root zone's KEK.
    package static func authenticate(_ file: SealedFile, _ keys: ZoneKeys, _ name: String) throws(VolumeError) {
        guard let kek = keys.kek(file.kekVersion) else { throw .notAuthentic(name) }
        let code: [UInt8]
        do { code = try kek.code(for: file.body) } catch { throw .cipher }
        guard HMACSHA256.isEqual(code, file.mac) else { throw .notAuthentic(name) }
    }

    package static func seal(_ body: [UInt8], _ keys: ZoneKeys) throws(VolumeError) -> [UInt8] {
        do {
            return SealedFile(body: body, kekVersion: keys.activeKEK.version, mac: try keys.activeKEK.code(for: body))
                .encoded
        } catch { throw .cipher }
    }
}
