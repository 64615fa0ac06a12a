import VolumeFormat

/// One object of each kind, with every field set to something of its own. The golden files are their encodings.
enum Samples {
    static let volume = UniqueID(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF)
    static let object = UniqueID(high: 0xF0E1_D2C3_B4A5_9687, low: 0x7869_5A4B_3C2D_1E0F)
    static let zone = ZoneID(rawValue: 0x0403_0201)
    static let mac = [UInt8](0xC0...0xDF)

    static func wrapped(_ seed: UInt8) -> WrappedKey { WrappedKey((0..<40).map { seed &+ UInt8($0) }) }

    static func slot(_ version: UInt32, _ state: DEKSlot.State) -> DEKSlot {
        DEKSlot(
            version: KeyVersion(rawValue: version), kekVersion: KeyVersion(rawValue: version + 10),
            created: 1_700_000_000 + UInt64(version), invocationBound: 0x0102_0304_0506, state: state,
            wrapped: wrapped(UInt8(version & 0xFF)))
    }

    static func fileHeader(slots: Int = 2) -> FileHeader {
        FileHeader(
            volume: volume, file: object, zone: zone, state: .open, flags: [.sparse], size: 0x0001_0203_0405_0607,
            generation: 0x1112_1314_1516_1718, epoch: 0x2122_2324_2526_2728,
            slots: (1...slots).map { slot(UInt32($0), $0 == slots ? .current : .retiring) })
    }

    static func directoryHeader(slots: Int = 2) -> DirectoryHeader {
        DirectoryHeader(
            volume: volume, directory: object, zone: zone, generation: 0x3132_3334_3536_3738,
            slots: (1...slots).map { slot(UInt32($0), $0 == 1 ? .current : .retiring) })
    }

    static let description = VolumeDescription(volume: volume, created: 1_700_000_001, rootDirectory: object)

    static let state = VolumeState(
        volume: volume, epoch: 0x4142_4344_4546_4748, mounted: true, lastCrashedEpoch: 0x5152_5354_5556_5758)

    static var keyring: ZoneKeyring {
        let history = [StateChange(.preActivation, at: 1_600_000_000), StateChange(.active, at: 1_700_000_000)]
        let wraps = [
            ZoneKeyring.Wrap(cmk: 0, share: 1, wrap: RootWrap(algorithm: .aesGCM, blob: [UInt8](0..<60))),
            ZoneKeyring.Wrap(cmk: 1, share: 2, wrap: RootWrap(algorithm: .rsaOAEPSHA256, blob: [UInt8](1...255))),
        ]
        var keyring = ZoneKeyring(
            volume: volume, zone: zone, generation: 0x6162_6364_6566_6768, policy: .allOf,
            cmks: [
                .init(uri: "pkcs11:token=one;object=cmk", history: history),
                .init(uri: "pkcs11:token=zwei%20%C3%A4;id=%01", history: [StateChange(.active, at: 1_700_000_000)]),
            ],
            keks: [
                .init(version: .first, history: history + [StateChange(.deactivated, at: 1_800_000_000)], wraps: wraps),
                .init(version: KeyVersion(rawValue: 2), history: history, wraps: wraps),
            ],
            metadataKeys: [
                .init(version: .first, kekVersion: .first, created: 1_700_000_000, wrapped: wrapped(7)),
                .init(
                    version: KeyVersion(rawValue: 2), kekVersion: KeyVersion(rawValue: 2), created: 1_800_000_000,
                    wrapped: wrapped(8)),
            ])
        keyring.macs = [
            .init(kekVersion: .first, code: mac), .init(kekVersion: KeyVersion(rawValue: 2), code: mac.reversed()),
        ]
        return keyring
    }

    static let sealedBlob = SealedBlob(
        keyVersion: KeyVersion(rawValue: 0x0A0B_0C0D), iv: [UInt8](1...12), tag: [UInt8](0x20..<0x30),
        ciphertext: Array("ciphertext".utf8))

    static let xattr = XattrPlaintext(name: Array("user.name".utf8), value: [0, 255, 1])

    static let places = PlaceList(
        object: object, places: [PlaceList.Place(code: mac), PlaceList.Place(code: mac.reversed())])

    static let context = KEKContext(volume: volume, zone: zone, kekVersion: KeyVersion(rawValue: 0x0D0C_0B0A), share: 3)
}
