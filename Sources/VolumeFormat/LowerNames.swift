/// Names on the lower storage that are not encrypted names. None of their first characters, up to the dot, can be mistaken:
/// base64url has no dot.
package enum ReservedName {
    /// The volume's own directory in the lower root.
    package static let volumeDirectory = ".lethefs"
    /// The symbolic link that holds a directory's header.
    package static let directoryHeader = "lethefs.dir"
    /// An entry whose encrypted name does not fit: `lethefs.long.` and the HMAC of the name.
    package static let longEntry = "lethefs.long."
    /// The symbolic link beside it whose target is the encrypted name.
    package static let longName = "lethefs.name."
    /// ext4's own, where the lower directory is the root of a file system.
    package static let lostAndFound = "lost+found"
    /// A directory being made or removed, `lethefs.temp.` and a random number; a crash may leave it behind.
    package static let temporary = "lethefs.temp."
}

/// How a plaintext name is stored (FORMAT §5): base64url of its AES-256-KWP, or, longer than 255 characters, its HMAC.
package enum NameEncoding {
    /// Longest name, plain or lower (NAME_MAX).
    package static let maximum = 255
    /// Longest plaintext name whose encrypted form fits in 255 characters.
    package static let longestDirect = 176

    /// Bytes of the KWP ciphertext of a name.
    package static func wrappedCount(_ count: Int) -> Int { (count + 7) / 8 * 8 + 8 }
    /// True for a name that needs a sidecar.
    package static func isLong(_ count: Int) -> Bool { count > longestDirect }

    /// Checks a plaintext name, as unwrapped from disk: 1 to 255 bytes, no NUL, no slash, neither "." nor "..".
    package static func isValid(_ name: UnsafeRawBufferPointer) -> Bool {
        guard (1...maximum).contains(name.count), !name.contains(0), !name.contains(UInt8(ascii: "/")) else {
            return false
        }
        let dots = name.count <= 2 && name.allSatisfy { $0 == UInt8(ascii: ".") }
        return !dots
    }
}
