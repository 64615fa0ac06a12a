import Ciphers
import KeyManagement
import Secrets
import Storage
import VolumeFormat

/// The keys derived from one version of a file's DEK (FORMAT §4): one key, one use.
final class FileKeys: Sendable {
    let version: KeyVersion
    let content: AEADKey
    let headerMAC: SecretKey
    let xattrNames: SecretKey
    let xattrValues: AEADKey
    /// Of the nodes of the page tree, where there is one.
    let tree: TreeKey?

    init(version: KeyVersion, dek: borrowing SecretKey, file: UniqueID, isListed: Bool) throws(CipherError) {
        let keys = try DerivedKeys(
            isListed ? 5 : 4, from: dek, salt: (file.high, file.low), info: "lethefs/1 file", version: version.rawValue)
        self.version = version
        content = AEADKey(keys.key(0))
        headerMAC = keys.key(1)
        xattrNames = keys.key(2)
        xattrValues = AEADKey(keys.key(3))
        tree = isListed ? TreeKey(AEADKey(keys.key(4))) : nil
    }
}

/// Seals the nodes of a page tree.
final class TreeKey: Sendable {
    let key: AEADKey
    init(_ key: consuming AEADKey) { self.key = key }
}

/// The keys derived from the current version of a directory's DEK (FORMAT §5).
final class DirectoryKeys: Sendable {
    let version: KeyVersion
    let names: SecretKey
    let longNames: SecretKey
    let headerMAC: SecretKey
    let xattrNames: SecretKey
    let xattrValues: AEADKey
    /// Of a volume whose objects say which names are theirs (FORMAT §13).
    let places: PlaceKey?

    init(
        version: KeyVersion, dek: borrowing SecretKey, directory: UniqueID, hasPlaces: Bool = false
    ) throws(CipherError) {
        let keys = try DerivedKeys(
            hasPlaces ? 6 : 5, from: dek, salt: (directory.high, directory.low), info: "lethefs/1 directory",
            version: version.rawValue)
        self.version = version
        names = keys.key(0)
        longNames = keys.key(1)
        headerMAC = keys.key(2)
        xattrNames = keys.key(3)
        xattrValues = AEADKey(keys.key(4))
        places = hasPlaces ? PlaceKey(keys.key(5)) : nil
    }
}

/// The key of the places in one directory (FORMAT §13): there, or not.
final class PlaceKey: Sendable {
    let secret: SecretKey

    init(_ secret: consuming SecretKey) { self.secret = secret }
}
