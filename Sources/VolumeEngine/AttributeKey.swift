import Ciphers
import KeyManagement
import Storage
import VolumeFormat

/// The keys of one object's extended attributes, and how its attributes are named on the lower storage.
struct AttributeKey {
    enum Owner {
        case file(FileKeys, UniqueID)
        case directory(DirectoryHandle)
        /// A symbolic link or special file: it has no header, so the zone's metadata key serves.
        case other(MetadataKeys)
    }

    static let userPrefix = "user.lethefs."
    /// The lower kernel allows no user attributes on links and special files.
    static let trustedPrefix = "trusted.lethefs."
    /// Bytes of the HMAC in a lower name.
    private static let digestSize = 16

    let owner: Owner

    var version: KeyVersion {
        switch owner {
        case .file(let keys, _): keys.version
        case .directory(let handle): handle.keys.version
        case .other(let keys): keys.version
        }
    }

    var aad: [UInt8] {
        switch owner {
        case .file(_, let id): SealedBlob.xattrAAD(owner: id)
        case .directory(let handle): SealedBlob.xattrAAD(owner: handle.header.directory)
        case .other: SealedBlob.xattrAAD(owner: UniqueID(high: 0, low: 0))
        }
    }

    /// The lower name of an attribute.
    func lowerName(_ name: String) throws(Errno) -> String {
        let message = Array(name.utf8)
        do {
            let (prefix, code) =
                switch owner {
                case .file(let keys, _): (Self.userPrefix, try HMACSHA256.code(key: keys.xattrNames, message: message))
                case .directory(let handle):
                    (Self.userPrefix, try HMACSHA256.code(key: handle.keys.xattrNames, message: message))
                case .other(let keys): (Self.trustedPrefix, try HMACSHA256.code(key: keys.xattrNames, message: message))
                }
            return prefix + String(decoding: Base64URL.encode(Array(code.prefix(Self.digestSize))), as: UTF8.self)
        } catch { throw .io }
    }
}
