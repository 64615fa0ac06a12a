import ControlPlane
import FoundationEssentials
import KeyProviderPKCS11
import VolumeFormat

/// The parsers that read what an attacker may have written: from the lower storage, the command line, a socket.
package enum FuzzTarget: String, CaseIterable, Sendable {
    case fileHeader, directoryHeader, keyring, description, state, sealedFile, sealedBlob, attribute, name, manifest
    case places, auditKeys, auditHead, auditRecord, pkcs11URI, controlRequest

    /// Feeds bytes to the parser. What it accepts must encode to the very same bytes (for texts: to a fixed point).
    /// Returns what is wrong; a parser that does not return at all is found by its trap.
    package func violation(_ bytes: [UInt8]) -> String? {
        do {
            guard let again = try parseAndEncode(bytes) else { return nil }
            return again.elementsEqual(bytes) ? nil : "encodes to other bytes"
        } catch { return nil }
    }

    /// `nil` where there is nothing to compare.
    private func parseAndEncode(_ bytes: [UInt8]) throws -> [UInt8]? {
        try bytes.withUnsafeBytes { (raw) throws -> [UInt8]? in
            switch self {
            case .fileHeader:
                guard raw.count == Geometry.headerSize else { return nil }
                return try FileHeader(parsing: raw).authenticatedBytes + raw.suffix(32)
            case .directoryHeader: return try DirectoryHeader(parsing: raw).authenticatedBytes + raw.suffix(32)
            case .keyring: return try ZoneKeyring(parsing: bytes).encoded
            case .description: return try VolumeDescription(parsing: raw).authenticatedBytes
            case .state: return try VolumeState(parsing: raw).authenticatedBytes
            case .sealedFile: return try SealedFile(parsing: bytes, of: "test").encoded
            case .sealedBlob: return try SealedBlob(parsing: raw).encoded
            case .attribute: return try XattrPlaintext(parsing: bytes).encoded
            case .places: return try PlaceList(parsing: raw).encoded
            case .name: return Self.name(raw)
            case .manifest: return try ManifestList(parsing: raw).authenticatedBytes
            case .auditKeys: return try AuditKeyList(parsing: raw).authenticatedBytes
            case .auditHead: return try AuditHead(parsing: raw).authenticatedBytes
            case .auditRecord: return AuditRecord(line: bytes).map { Array($0.line.utf8) }
            case .pkcs11URI: return try Self.uri(bytes)
            case .controlRequest: return try Self.request(bytes)
            }
        }
    }

    private static func name(_ raw: UnsafeRawBufferPointer) -> [UInt8]? {
        _ = NameEncoding.isValid(raw)
        return Base64URL.decode(raw).map { Base64URL.encode($0) }
    }

    /// The text of a URI may be spelled otherwise than it came, but then stays as it is.
    private static func uri(_ bytes: [UInt8]) throws -> [UInt8]? {
        let first = try PKCS11URI(String(decoding: bytes, as: UTF8.self)).textWithPINSource
        let second = try PKCS11URI(first).textWithPINSource
        return first == second ? nil : Array("not a fixed point".utf8)
    }

    private static func request(_ bytes: [UInt8]) throws -> [UInt8]? {
        let request = try JSONDecoder().decode(ControlRequest.self, from: Data(bytes))
        let again = try JSONDecoder().decode(ControlRequest.self, from: try JSONEncoder().encode(request))
        return request == again ? nil : Array("another request".utf8)
    }
}
