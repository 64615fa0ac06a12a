import Foundation
import TestSupport
import Testing
import VolumeFormat

/// The bytes of format version 1, for ever: `Golden/*.hex` were written once and only their reader may change.
/// A new object's file is made with LETHEFS_WRITE_GOLDEN=DIR, and then read by a person.
@Suite struct GoldenTests {
    private func golden(_ name: String) throws -> [UInt8] {
        let url = try #require(
            Bundle.module.url(forResource: name, withExtension: "hex", subdirectory: "Golden"), "no \(name).hex")
        let lines = try String(contentsOf: url, encoding: .utf8).split(separator: "\n")
        let digits = lines.filter { !$0.hasPrefix("#") }.joined().filter { $0 != " " }
        return try #require(Hex.decode(digits))
    }

    private func write(_ name: String, _ bytes: [UInt8], to directory: String) throws {
        var text = "# LetheFS format version 1, \(name): the encoding of the sample of that name in Samples.swift.\n"
        text += "# Expected: parses, equals the sample, encodes to these bytes again.\n"
        for start in stride(from: 0, to: bytes.count, by: 32) {
            text += Hex.encode(bytes[start..<min(start + 32, bytes.count)]) + "\n"
        }
        try text.write(toFile: "\(directory)/\(name).hex", atomically: true, encoding: .utf8)
    }

    @Test(arguments: FormatObject.allCases)
    func bytesAreAsEver(object: FormatObject) throws {
        if let directory = ProcessInfo.processInfo.environment["LETHEFS_WRITE_GOLDEN"] {
            return try write(object.rawValue, object.sample, to: directory)
        }
        let golden = try golden(object.rawValue)
        #expect(object.sample == golden)
        #expect(try object.parseAndEncode(golden) == golden)
    }

    @Test func valuesAreAsEver() throws {
        let header = try FileHeader(parsing: golden("fileHeader"))
        #expect(header == Samples.fileHeader())
        #expect(try DirectoryHeader(parsing: golden("directoryHeader")) == Samples.directoryHeader())
        #expect(try ZoneKeyring(parsing: try golden("keyring")) == Samples.keyring)
        #expect(try VolumeDescription(parsing: golden("description")) == Samples.description)
        #expect(try VolumeState(parsing: golden("state")) == Samples.state)
        #expect(try SealedBlob(parsing: golden("sealedBlob")) == Samples.sealedBlob)
        #expect(try XattrPlaintext(parsing: try golden("xattr")) == Samples.xattr)
        #expect(try PlaceList(parsing: golden("places")) == Samples.places)
    }

    /// Where the format is bound into other keys and tags: written out here byte by byte.
    @Test func boundContexts() {
        let volume = "00112233445566778899aabbccddeeff"
        #expect(
            Hex.encode(Samples.context.encoded) == "4c657468654653204b454b2031" + volume + "01020304" + "0a0b0c0d"
                + "03")
        #expect(
            Hex.encode(SealedBlob.linkAAD(volume: Samples.volume, zone: Samples.zone)) == "4c53594d" + volume
                + "01020304")
        #expect(Hex.encode(SealedBlob.xattrAAD(owner: Samples.volume)) == "4c584154" + volume)
        let message = Array("name".utf8).withUnsafeBytes { PlaceList.message(object: Samples.volume, name: $0) }
        #expect(Hex.encode(message) == "4c504c43" + volume + "6e616d65")
        var aad = [UInt8](repeating: 0, count: PageAAD.size)
        let leader = PageLeader(version: KeyVersion(rawValue: 0xABCDE), usedLength: 0x123)
        aad.withUnsafeMutableBytes { bytes in
            guard let start = bytes.baseAddress else { return }
            PageAAD.prepare(start, file: Samples.volume)
            PageAAD.set(start, page: PageIndex(rawValue: 0x0102_0304_0506_0708), leader: leader)
        }
        #expect(Hex.encode(aad) == "4c504731" + "23e1cdab" + volume + "0807060504030201")
    }
}

extension FileHeader {
    fileprivate init(parsing bytes: [UInt8]) throws { self = try bytes.withUnsafeBytes { try FileHeader(parsing: $0) } }
}

extension DirectoryHeader {
    fileprivate init(parsing bytes: [UInt8]) throws { self = try bytes.withUnsafeBytes { try Self(parsing: $0) } }
}

extension VolumeDescription {
    fileprivate init(parsing bytes: [UInt8]) throws { self = try bytes.withUnsafeBytes { try Self(parsing: $0) } }
}

extension VolumeState {
    fileprivate init(parsing bytes: [UInt8]) throws { self = try bytes.withUnsafeBytes { try Self(parsing: $0) } }
}

extension PlaceList {
    fileprivate init(parsing bytes: [UInt8]) throws { self = try bytes.withUnsafeBytes { try Self(parsing: $0) } }
}

extension SealedBlob {
    fileprivate init(parsing bytes: [UInt8]) throws { self = try bytes.withUnsafeBytes { try Self(parsing: $0) } }
}
