import CPKCS11
import KeyManagement
import Secrets

/// Token management (PKCS#11 2.40 §5.5): C_InitToken and C_InitPIN. Only tokens of our own are ever initialised.
extension Cryptoki {
    /// Initialises the one free slot, and sets the user's PIN.
    func initializeToken(_ label: String, _ pins: EmbeddedPINs) throws(Failure) {
        var free: CK_SLOT_ID?
        for slot in try slotsWithToken() where try !tokenInfo(slot).isInitialized { free = slot }
        guard let free else { throw Failure(.failed, "SoftHSM2 offers no free slot") }
        var padded = Array(label.utf8) + [UInt8](repeating: UInt8(ascii: " "), count: 32 - label.utf8.count)
        try pins.securityOfficerPIN.withPIN { (pin, count) throws(Failure) in
            try check("C_InitToken") { functions.pointee.C_InitToken?(free, pin, count, &padded) }
        }
        // The token has another slot from now on.
        var wanted = PKCS11URI.TokenAttributes()
        wanted.token = label
        let session = try openSession(try findToken(wanted).slot, writable: true)
        defer { try? closeSession(session) }
        try login(session, as: CKU_SO, pin: pins.securityOfficerPIN)
        try pins.userPIN.withPIN { (pin, count) throws(Failure) in
            try check("C_InitPIN") { functions.pointee.C_InitPIN?(session, pin, count) }
        }
        try check("C_Logout") { functions.pointee.C_Logout?(session) }
    }
}

extension SecretBuffer {
    /// The bytes as PKCS#11 takes a PIN; no module writes to it.
    borrowing func withPIN<E: Error>(_ body: (UnsafeMutablePointer<UInt8>?, CK_ULONG) throws(E) -> Void) throws(E) {
        try withBytes { (bytes) throws(E) in
            let start = UnsafeMutableRawPointer(mutating: bytes.baseAddress)?.assumingMemoryBound(to: UInt8.self)
            try body(start, CK_ULONG(bytes.count))
        }
    }
}
