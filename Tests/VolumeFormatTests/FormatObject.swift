import Foundation
import TestSupport
import Testing
import VolumeFormat

/// A kind of stored object: its sample's bytes, and what parsing and encoding again makes of any bytes.
enum FormatObject: String, CaseIterable, CustomTestStringConvertible {
    case fileHeader, directoryHeader, keyring, description, state, sealedFile, sealedBlob, xattr, places

    var testDescription: String { rawValue }

    var sample: [UInt8] {
        switch self {
        case .fileHeader: Samples.fileHeader().authenticatedBytes + Samples.mac
        case .directoryHeader: Samples.directoryHeader().authenticatedBytes + Samples.mac
        case .keyring: Samples.keyring.encoded
        case .description: Samples.description.authenticatedBytes
        case .state: Samples.state.authenticatedBytes
        case .sealedFile:
            SealedFile(
                body: Samples.state.authenticatedBytes, kekVersion: KeyVersion(rawValue: 0x0102_0304), mac: Samples.mac
            ).encoded
        case .sealedBlob: Samples.sealedBlob.encoded
        case .xattr: Samples.xattr.encoded
        case .places: Samples.places.encoded
        }
    }

    /// Encodes what these bytes parse to; the MAC that follows an object is carried over as it is.
    func parseAndEncode(_ bytes: [UInt8]) throws(FormatError) -> [UInt8] {
        try bytes.withUnsafeBufferPointer { (buffer) throws(FormatError) in
            let raw = UnsafeRawBufferPointer(buffer)
            switch self {
            case .fileHeader: return try FileHeader(parsing: raw).authenticatedBytes + raw.suffix(32)
            case .directoryHeader: return try DirectoryHeader(parsing: raw).authenticatedBytes + raw.suffix(32)
            case .keyring: return try ZoneKeyring(parsing: bytes).encoded
            case .description: return try VolumeDescription(parsing: raw).authenticatedBytes
            case .state: return try VolumeState(parsing: raw).authenticatedBytes
            case .sealedFile: return try SealedFile(parsing: bytes, of: "test").encoded
            case .sealedBlob: return try SealedBlob(parsing: raw).encoded
            case .xattr: return try XattrPlaintext(parsing: bytes).encoded
            case .places: return try PlaceList(parsing: raw).encoded
            }
        }
    }

    func code(_ bytes: [UInt8]) -> FormatError.Code? {
        do throws(FormatError) {
            _ = try parseAndEncode(bytes)
            return nil
        } catch { return error.code }
    }
}
