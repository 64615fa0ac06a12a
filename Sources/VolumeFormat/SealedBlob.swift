/// A short sealed value: key version 4 | IV 12 | tag 16 | ciphertext (FORMAT §7). Symbolic link targets and extended attributes.
package struct SealedBlob: Equatable, Sendable {
    package static let overhead = 32

    package var keyVersion: KeyVersion
    package var iv: [UInt8]
    package var tag: [UInt8]
    package var ciphertext: [UInt8]

    package init(keyVersion: KeyVersion, iv: [UInt8], tag: [UInt8], ciphertext: [UInt8]) {
        self.keyVersion = keyVersion
        self.iv = iv
        self.tag = tag
        self.ciphertext = ciphertext
    }

    package var encoded: [UInt8] {
        var writer = ByteWriter()
        writer.append(keyVersion.rawValue)
        writer.append(contentsOf: iv)
        writer.append(contentsOf: tag)
        writer.append(contentsOf: ciphertext)
        return writer.bytes
    }

    package init(parsing bytes: UnsafeRawBufferPointer) throws(FormatError) {
        var reader = ByteReader(bytes, of: "sealed value")
        keyVersion = KeyVersion(rawValue: try reader.read())
        iv = try reader.readBytes(12)
        tag = try reader.readBytes(16)
        ciphertext = try reader.readBytes(reader.remaining)
        guard keyVersion.rawValue > 0 else { throw FormatError(.malformed, "sealed value") }
    }

    /// The AAD of a symbolic link's target.
    package static func linkAAD(volume: UniqueID, zone: ZoneID) -> [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Array("LSYM".utf8))
        writer.append(volume)
        writer.append(zone.rawValue)
        return writer.bytes
    }

    /// The AAD of an extended attribute: of a file or directory by its UUID, of anything else by its zone.
    package static func xattrAAD(owner: UniqueID) -> [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Array("LXAT".utf8))
        writer.append(owner)
        return writer.bytes
    }
}

/// The lower target of a symbolic link: base64url of the sealed target. One that does not fit in 4095 characters is split:
/// "+", the 22 characters of an id, and the first 4072 characters here; the rest is the target of `.lethefs/links/<id>`.
package enum LinkEncoding {
    package static let maximumTarget = 4095
    package static let idCount = 22
    package static let splitMark = UInt8(ascii: "+")
    package static let headCount = maximumTarget - 1 - idCount

    /// Length of the plaintext target, from the length of a lower target that is not split.
    package static func plainCount(lowerCount: Int) -> Int? {
        let count = Base64URL.decodedCount(lowerCount) - SealedBlob.overhead
        return count > 0 && lowerCount % 4 != 1 ? count : nil
    }

    /// True for a target of `count` bytes whose lower form is split.
    package static func isSplit(plainCount: Int) -> Bool {
        Base64URL.encodedCount(plainCount + SealedBlob.overhead) >= maximumTarget
    }
}

/// The plaintext inside a sealed extended attribute: name length 1 | name | value.
package struct XattrPlaintext: Equatable, Sendable {
    package static let maximumName = 255
    package var name: [UInt8]
    package var value: [UInt8]

    package init(name: [UInt8], value: [UInt8]) {
        self.name = name
        self.value = value
    }

    package var encoded: [UInt8] { [UInt8(name.count)] + name + value }

    package init(parsing bytes: [UInt8]) throws(FormatError) {
        guard let count = bytes.first, count > 0, bytes.count > Int(count) else {
            throw FormatError(.malformed, "extended attribute")
        }
        name = Array(bytes[1...Int(count)])
        value = Array(bytes[(Int(count) + 1)...])
    }
}
