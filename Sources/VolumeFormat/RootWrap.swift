/// How a CMK wrapped a KEK. Recorded with the wrap; a reader never tries another one (FORMAT §6).
package enum WrapAlgorithm: UInt8, Sendable, CaseIterable {
    /// AES-256-GCM inside the token, the context as AAD. Blob: IV 12 | ciphertext 32 | tag 16.
    case aesGCM = 1
    /// RSA-OAEP with SHA-256, then HMAC-SHA256 over context and ciphertext under a key derived from the KEK.
    case rsaOAEPSHA256 = 2
    /// RSA-OAEP with SHA-1 (tokens that offer no other), then the same HMAC.
    case rsaOAEPSHA1 = 3
    /// AES-CBC inside the token, then the same HMAC. Blob: IV 16 | ciphertext | MAC 32.
    case aesCBCHMAC = 4
    /// Two halves whose exclusive-or is the KEK: one under the CMK, one under a version key beside it (`SplitWrap`).
    case split = 5
}

/// One CMK's wrap of one KEK (or of one share of it).
package struct RootWrap: Equatable, Sendable {
    package var algorithm: WrapAlgorithm
    package var blob: [UInt8]

    /// Longest blob accepted from a keyring: an RSA-4096 ciphertext, IV and MAC with room to spare.
    package static let maximumBlob = 2048

    package init(algorithm: WrapAlgorithm, blob: [UInt8]) {
        self.algorithm = algorithm
        self.blob = blob
    }
}

/// What a wrapped KEK is bound to: AAD of the wrap, or encryption context of a cloud KMS.
package struct KEKContext: Equatable, Sendable {
    package var volume: UniqueID
    package var zone: ZoneID
    package var kekVersion: KeyVersion
    /// Which share of the KEK the wrap holds: 0 for the whole KEK.
    package var share: UInt8

    package init(volume: UniqueID, zone: ZoneID, kekVersion: KeyVersion, share: UInt8 = 0) {
        self.volume = volume
        self.zone = zone
        self.kekVersion = kekVersion
        self.share = share
    }

    /// "LetheFS KEK 1" | volume UUID 16 | zone 4 | KEK version 4 | share 1, integers little-endian (FORMAT §6).
    package var encoded: [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Array("LetheFS KEK 1".utf8))
        writer.append(volume)
        writer.append(zone.rawValue)
        writer.append(kekVersion.rawValue)
        writer.append(share)
        return writer.bytes
    }
}
