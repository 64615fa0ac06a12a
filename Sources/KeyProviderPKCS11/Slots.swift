import CPKCS11
import KeyManagement

/// Slot and token management (PKCS#11 2.40 §5.5).
extension Cryptoki {
    /// More slots than any module has; a bound on what one may claim.
    private static let maximumSlots = 4096

    func slotsWithToken() throws(Failure) -> [CK_SLOT_ID] {
        // The number may grow between the two calls.
        for _ in 0..<3 {
            var count: CK_ULONG = 0
            try check("C_GetSlotList") { functions.pointee.C_GetSlotList?(1, nil, &count) }
            guard count > 0 else { return [] }
            guard count <= Self.maximumSlots else { throw Failure("C_GetSlotList", CKR_GENERAL_ERROR) }
            var slots = [CK_SLOT_ID](repeating: 0, count: Int(count))
            do {
                try check("C_GetSlotList") { functions.pointee.C_GetSlotList?(1, &slots, &count) }
                return Array(slots.prefix(Int(count)))
            } catch {
                guard error.returnValue?.rawValue == CKR_BUFFER_TOO_SMALL else { throw error }
            }
        }
        throw Failure("C_GetSlotList", CKR_BUFFER_TOO_SMALL)
    }

    func tokenInfo(_ slot: CK_SLOT_ID) throws(Failure) -> TokenInfo {
        var info = CK_TOKEN_INFO()
        try check("C_GetTokenInfo") { functions.pointee.C_GetTokenInfo?(slot, &info) }
        return TokenInfo(info)
    }

    func libraryInfo() throws(Failure) -> LibraryInfo {
        var info = CK_INFO()
        try check("C_GetInfo") { functions.pointee.C_GetInfo?(&info) }
        return LibraryInfo(
            manufacturer: paddedText(info.manufacturerID), description: paddedText(info.libraryDescription),
            version: "\(info.libraryVersion.major).\(info.libraryVersion.minor)")
    }

    /// The slot and the token that the URI's attributes select: exactly one.
    func findToken(_ wanted: PKCS11URI.TokenAttributes) throws(Failure) -> (slot: CK_SLOT_ID, info: TokenInfo) {
        if wanted.libraryManufacturer != nil || wanted.libraryDescription != nil || wanted.libraryVersion != nil {
            guard try libraryInfo().matches(wanted) else {
                throw Failure(.tokenNotFound, "the module is not the one that the URI describes")
            }
        }
        var found: [(slot: CK_SLOT_ID, info: TokenInfo)] = []
        for slot in try slotsWithToken() {
            if let id = wanted.slotID, id != slot { continue }
            if wanted.slotManufacturer != nil || wanted.slotDescription != nil {
                guard try slotMatches(slot, wanted) else { continue }
            }
            // A slot that fails by itself must not hide the others.
            guard let info = try? tokenInfo(slot), info.isInitialized, info.matches(wanted) else { continue }
            found.append((slot, info))
        }
        guard let first = found.first else {
            let name = wanted.token.map { "token \"\($0)\"" } ?? "such token"
            throw Failure(.tokenNotFound, "no \(name) in the module", mayNeedRestart: true)
        }
        guard found.count == 1 else { throw Failure(.keyAmbiguous, "\(found.count) tokens match the URI") }
        return first
    }

    private func slotMatches(_ slot: CK_SLOT_ID, _ wanted: PKCS11URI.TokenAttributes) throws(Failure) -> Bool {
        var info = CK_SLOT_INFO()
        try check("C_GetSlotInfo") { functions.pointee.C_GetSlotInfo?(slot, &info) }
        return wanted.slotManufacturer.matches(paddedText(info.manufacturerID))
            && wanted.slotDescription.matches(paddedText(info.slotDescription))
    }

    /// Whether the slot offers a mechanism with all of `flags`; its key sizes if so (bits or bytes, as the module likes).
    func mechanism(
        _ type: CK_MECHANISM_TYPE, _ flags: CK_FLAGS, in slot: CK_SLOT_ID
    ) throws(Failure) -> CK_MECHANISM_INFO? {
        var info = CK_MECHANISM_INFO()
        do {
            try check("C_GetMechanismInfo") { functions.pointee.C_GetMechanismInfo?(slot, type, &info) }
        } catch {
            guard error.returnValue?.rawValue == CKR_MECHANISM_INVALID else { throw error }
            return nil
        }
        return info.flags & flags == flags ? info : nil
    }
}

/// What a token says about itself (CK_TOKEN_INFO), without padding.
struct TokenInfo: Sendable {
    let label, manufacturer, model, serial: String
    let flags: CK_FLAGS

    init(_ info: CK_TOKEN_INFO) {
        label = paddedText(info.label)
        manufacturer = paddedText(info.manufacturerID)
        model = paddedText(info.model)
        serial = paddedText(info.serialNumber)
        flags = info.flags
    }

    var isInitialized: Bool { flags & CKF_TOKEN_INITIALIZED != 0 }
    var needsLogin: Bool { flags & CKF_LOGIN_REQUIRED != 0 }
    var hasPINPad: Bool { flags & CKF_PROTECTED_AUTHENTICATION_PATH != 0 }

    func matches(_ wanted: PKCS11URI.TokenAttributes) -> Bool {
        wanted.token.matches(label) && wanted.manufacturer.matches(manufacturer) && wanted.model.matches(model)
            && wanted.serial.matches(serial)
    }
}

/// What a module says about itself (CK_INFO).
struct LibraryInfo: Sendable {
    let manufacturer, description, version: String

    func matches(_ wanted: PKCS11URI.TokenAttributes) -> Bool {
        wanted.libraryManufacturer.matches(manufacturer) && wanted.libraryDescription.matches(description)
            && wanted.libraryVersion.matches(version)
    }
}

extension String? {
    /// An attribute that is not given matches everything.
    fileprivate func matches(_ value: String) -> Bool { self == nil || self == value }
}

/// The text of a blank-padded field; some modules end it with a NUL.
private func paddedText<Field>(_ field: Field) -> String {
    withUnsafeBytes(of: field) { bytes in
        var end = bytes.firstIndex(of: 0) ?? bytes.count
        while end > 0, bytes[end - 1] == UInt8(ascii: " ") { end -= 1 }
        return String(decoding: bytes[..<end], as: UTF8.self)
    }
}
