import TestSupport
import Testing
import VolumeFormat

/// Each version, flag, count and length at its bounds and just beyond.
@Suite struct BoundsTests {
    /// The sample with some bytes replaced.
    private func patched(_ object: FormatObject, _ offset: Int, _ bytes: [UInt8]) -> [UInt8] {
        var sample = object.sample
        sample.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        return sample
    }

    /// Offset of the version, and of the feature flags where there are any.
    static let versioned: [(FormatObject, Int, Int?)] = [
        (.fileHeader, 8, 12), (.directoryHeader, 4, 6), (.keyring, 8, 10), (.description, 8, 10), (.state, 8, nil),
    ]

    @Test(arguments: versioned)
    func newerFormatsAreRefused(object: FormatObject, version: Int, features: Int?) {
        #expect(object.code(patched(object, 0, [0x6C])) == .notMagic)
        for value: [UInt8] in [[0, 0], [2, 0], [1, 1], [255, 255]] {
            #expect(object.code(patched(object, version, value)) == .unknownVersion)
        }
        guard let features else { return }
        // In a keyring bit 0 says that work is listed; in a description bits 1 and 2 what `init --integrity` added, in a file's header
        // bit 1 that a tree lists its pages.
        let known: Set<Int> =
            object == .keyring ? [0] : object == .description ? [1, 2] : object == .fileHeader ? [1] : []
        for bit in 0..<32 where !known.contains(bit) {
            var flags: [UInt8] = [0, 0, 0, 0]
            flags[bit / 8] = 1 << (bit % 8)
            #expect(object.code(patched(object, features, flags)) == .unknownFeature)
        }
    }

    @Test(arguments: [0, 1, 511, 513, 4096])
    func aFileHeaderHas512Bytes(count: Int) {
        #expect(FormatObject.fileHeader.code([UInt8](repeating: 0, count: count)) == .truncated)
    }

    /// Fields of the file header: offset, value, and whether it is refused.
    static let fields: [(Int, [UInt8], Bool)] = [
        (10, [1], true), (52, [2], true), (52, [0], false), (53, [0], true), (53, [5], true), (53, [255], true),
        (54, [1], true), (55, [1], true), (56, [0, 0, 0, 0, 0, 0, 0, 0x40], false),
        (56, [1, 0, 0, 0, 0, 0, 0, 0x40], true), (56, [0, 0, 0, 0, 0, 0, 0, 0x80], true), (80, [0], false),
        (80, [2], true), (83, [0x80], true), (84, [1], true), (151, [1], true), (296, [1], true), (479, [1], true),
    ]

    @Test(arguments: fields)
    func fileHeaderFields(offset: Int, value: [UInt8], isRefused: Bool) {
        let code = FormatObject.fileHeader.code(patched(.fileHeader, offset, value))
        #expect(code == (isRefused ? .malformed : nil))
    }

    @Test(arguments: 1...4)
    func slotCounts(count: Int) throws {
        let file = Samples.fileHeader(slots: count)
        #expect(FormatObject.fileHeader.code(file.authenticatedBytes + Samples.mac) == nil)
        #expect(file.currentIndex == count - 1)
        let directory = Samples.directoryHeader(slots: count)
        #expect(FormatObject.directoryHeader.code(directory.authenticatedBytes + Samples.mac) == nil)
        #expect(directory.currentIndex == 0)
    }

    @Test func slotsThatContradictEachOther() {
        var twoCurrent = Samples.fileHeader(slots: 3)
        twoCurrent.slots[0].state = .current
        var noneCurrent = Samples.fileHeader(slots: 3)
        noneCurrent.slots[2].state = .retiring
        var sameVersion = Samples.fileHeader(slots: 3)
        sameVersion.slots[1].version = sameVersion.slots[0].version
        var noVersion = Samples.fileHeader(slots: 3)
        noVersion.slots[1].version = KeyVersion(rawValue: 0)
        var tooHigh = Samples.fileHeader(slots: 3)
        tooHigh.slots[1].version = KeyVersion(rawValue: PageLeader.maximumVersion + 1)
        var noKEK = Samples.fileHeader(slots: 3)
        noKEK.slots[1].kekVersion = KeyVersion(rawValue: 0)
        for header in [twoCurrent, noneCurrent, sameVersion, noVersion, tooHigh, noKEK] {
            #expect(FormatObject.fileHeader.code(header.authenticatedBytes + Samples.mac) == .malformed)
        }
        var highest = Samples.fileHeader(slots: 3)
        highest.slots[1].version = KeyVersion(rawValue: PageLeader.maximumVersion)
        #expect(FormatObject.fileHeader.code(highest.authenticatedBytes + Samples.mac) == nil)
    }

    @Test(arguments: [(1, true), (16, true), (0, false), (17, false)])
    func cmkCounts(count: Int, isAccepted: Bool) {
        var keyring = Samples.keyring
        keyring.cmks = [ZoneKeyring.CMK](repeating: keyring.cmks[0], count: count)
        for index in keyring.keks.indices { keyring.keks[index].wraps = [] }
        #expect((FormatObject.keyring.code(keyring.encoded) == nil) == isAccepted)
    }

    @Test(arguments: [(1, true), (4096, true), (0, false), (4097, false)])
    func uriLengths(count: Int, isAccepted: Bool) {
        var keyring = Samples.keyring
        keyring.cmks[0].uri = String(repeating: "u", count: count)
        #expect((FormatObject.keyring.code(keyring.encoded) == nil) == isAccepted)
    }

    @Test(arguments: [(1, true), (64, true), (0, false), (65, false)])
    func histories(count: Int, isAccepted: Bool) {
        var keyring = Samples.keyring
        keyring.keks[0].history = [StateChange](repeating: StateChange(.active, at: 1), count: count)
        #expect((FormatObject.keyring.code(keyring.encoded) == nil) == isAccepted)
    }

    @Test(arguments: [(0, true), (2048, true), (2049, false)])
    func blobLengths(count: Int, isAccepted: Bool) {
        var keyring = Samples.keyring
        keyring.keks[0].wraps[0].wrap.blob = [UInt8](repeating: 1, count: count)
        #expect((FormatObject.keyring.code(keyring.encoded) == nil) == isAccepted)
    }

    @Test(arguments: [(1, true), (4096, true), (0, false), (4097, false)])
    func keyCounts(count: Int, isAccepted: Bool) {
        let versions = (0..<count).map { KeyVersion(rawValue: UInt32($0 + 1)) }
        var keks = Samples.keyring
        keks.keks = versions.map { .init(version: $0, history: [StateChange(.active, at: 1)], wraps: []) }
        #expect((FormatObject.keyring.code(keks.encoded) == nil) == isAccepted)
        var metadata = Samples.keyring
        metadata.metadataKeys = versions.map {
            .init(version: $0, kekVersion: .first, created: 1, wrapped: Samples.wrapped(1))
        }
        #expect((FormatObject.keyring.code(metadata.encoded) == nil) == isAccepted)
        var macs = Samples.keyring
        macs.macs = versions.map { .init(kekVersion: $0, code: Samples.mac) }
        #expect((FormatObject.keyring.code(macs.encoded) == nil) == isAccepted)
    }

    @Test func keyringsThatContradictThemselves() {
        var wrongCMK = Samples.keyring
        wrongCMK.keks[0].wraps[0].cmk = 2
        var sameKEK = Samples.keyring
        sameKEK.keks[1].version = sameKEK.keks[0].version
        var sameMetadata = Samples.keyring
        sameMetadata.metadataKeys[1].version = sameMetadata.metadataKeys[0].version
        var noVersion = Samples.keyring
        noVersion.keks[0].version = KeyVersion(rawValue: 0)
        for keyring in [wrongCMK, sameKEK, sameMetadata, noVersion] {
            #expect(FormatObject.keyring.code(keyring.encoded) == .malformed)
        }
        let long = [UInt8](repeating: 0, count: ZoneKeyring.maximumEncodedSize + 1)
        #expect(FormatObject.keyring.code(long) == .malformed)
    }

    @Test func activeKEKIsTheNewest() {
        #expect(Samples.keyring.activeKEK?.version == KeyVersion(rawValue: 2))
        #expect(KeyState.allCases.filter(\.mayDecrypt) == [.active, .deactivated, .compromised])
    }

    /// Settings of a volume: in order, none twice, none unknown, never an empty list.
    @Test func settings() throws {
        var description = Samples.description
        description.settings = [.graceSeconds: 60]
        let bytes = description.authenticatedBytes
        #expect(try bytes.withUnsafeBytes { try VolumeDescription(parsing: $0) } == description)
        let body = Samples.description.authenticatedBytes
        func entry(_ number: UInt8) -> [UInt8] { [number, 0] + [UInt8](repeating: 0, count: 8) }
        #expect(FormatObject.description.code(body + [1, 0] + entry(1)) == nil)
        #expect(FormatObject.description.code(body + [0, 0]) == .malformed)
        #expect(FormatObject.description.code(body + [2, 0] + entry(1) + entry(1)) == .malformed)
        #expect(FormatObject.description.code(body + [1, 0] + entry(255)) == .unknownFeature)
        #expect(FormatObject.description.code(body + [2, 0] + entry(1)) == .truncated)
        #expect(FormatObject.description.code(body + [1, 0] + entry(1) + [0]) == .malformed)
    }

    @Test(arguments: [0, 1, 2])
    func mountedIsABit(value: UInt8) {
        #expect((FormatObject.state.code(patched(.state, 34, [value])) == nil) == (value < 2))
    }

    @Test func shortSealedValues() {
        #expect(FormatObject.sealedBlob.code([UInt8](repeating: 1, count: 31)) == .truncated)
        #expect(FormatObject.sealedBlob.code([UInt8](repeating: 1, count: 32)) == nil)
        #expect(FormatObject.sealedBlob.code([UInt8](repeating: 0, count: 32)) == .malformed)
        #expect(FormatObject.sealedFile.code([UInt8](repeating: 1, count: 36)) == .truncated)
        for xattr: [UInt8] in [[], [0], [0, 1], [1], [2, 1], [255, 1]] {
            #expect(FormatObject.xattr.code(xattr) == .malformed)
        }
        #expect(FormatObject.xattr.code([1, 1]) == nil)
    }
}
