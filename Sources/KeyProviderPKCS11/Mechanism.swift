import CPKCS11

/// A mechanism with its parameters (PKCS#11 2.40 §2).
enum Mechanism {
    /// AES-GCM with a 128-bit tag.
    case gcm(iv: [UInt8], additionalData: [UInt8])
    /// RSA-OAEP; the mask generation uses the same hash.
    case oaep(hash: CK_MECHANISM_TYPE, mask: CK_RSA_PKCS_MGF_TYPE)
    /// AES-CBC of whole blocks.
    case cbc(iv: [UInt8])
    /// Key generation, without parameters.
    case plain(CK_MECHANISM_TYPE)

    static let oaepSHA256 = Mechanism.oaep(hash: CKM_SHA256, mask: CK_RSA_PKCS_MGF_TYPE(CKG_MGF1_SHA256))
    static let oaepSHA1 = Mechanism.oaep(hash: CKM_SHA_1, mask: CK_RSA_PKCS_MGF_TYPE(CKG_MGF1_SHA1))

    /// The C form. Its memory stays in place until `body` returns: modules may read it after the Init call, too.
    func withMechanism<R: ~Copyable, E: Error>(
        _ body: (UnsafeMutablePointer<CK_MECHANISM>) throws(E) -> R
    ) throws(E) -> R {
        let memory = MechanismMemory(self)
        return try memory.with(body)
    }
}

/// A CK_MECHANISM and what it points to.
private struct MechanismMemory: ~Copyable {
    private let mechanism = UnsafeMutablePointer<CK_MECHANISM>.allocate(capacity: 1)
    private var blocks: [UnsafeMutableRawPointer] = []

    init(_ source: Mechanism) {
        mechanism.initialize(to: CK_MECHANISM())
        switch source {
        case .plain(let type): mechanism.pointee.mechanism = type
        case .cbc(let iv):
            mechanism.pointee.mechanism = CKM_AES_CBC
            mechanism.pointee.pParameter = UnsafeMutableRawPointer(copy(iv))
            mechanism.pointee.ulParameterLen = CK_ULONG(iv.count)
        case .gcm(let iv, let additionalData):
            let parameters = CK_GCM_PARAMS(
                pIv: copy(iv), ulIvLen: CK_ULONG(iv.count), ulIvBits: CK_ULONG(iv.count * 8),
                pAAD: copy(additionalData), ulAADLen: CK_ULONG(additionalData.count), ulTagBits: 128)
            set(CKM_AES_GCM, parameters)
        case .oaep(let hash, let mask):
            let parameters = CK_RSA_PKCS_OAEP_PARAMS(
                hashAlg: hash, mgf: mask, source: CKZ_DATA_SPECIFIED, pSourceData: nil, ulSourceDataLen: 0)
            set(CKM_RSA_PKCS_OAEP, parameters)
        }
    }

    borrowing func with<R: ~Copyable, E: Error>(
        _ body: (UnsafeMutablePointer<CK_MECHANISM>) throws(E) -> R
    ) throws(E) -> R {
        try body(mechanism)
    }

    private mutating func set<Parameters>(_ type: CK_MECHANISM_TYPE, _ parameters: Parameters) {
        let memory = UnsafeMutablePointer<Parameters>.allocate(capacity: 1)
        memory.initialize(to: parameters)
        blocks.append(UnsafeMutableRawPointer(memory))
        mechanism.pointee.mechanism = type
        mechanism.pointee.pParameter = UnsafeMutableRawPointer(memory)
        mechanism.pointee.ulParameterLen = CK_ULONG(MemoryLayout<Parameters>.size)
    }

    private mutating func copy(_ bytes: [UInt8]) -> UnsafeMutablePointer<UInt8> {
        let memory = UnsafeMutablePointer<UInt8>.allocate(capacity: max(bytes.count, 1))
        memory.initialize(repeating: 0, count: max(bytes.count, 1))
        for (index, byte) in bytes.enumerated() { memory[index] = byte }
        blocks.append(UnsafeMutableRawPointer(memory))
        return memory
    }

    deinit {
        for block in blocks { block.deallocate() }
        mechanism.deallocate()
    }
}
