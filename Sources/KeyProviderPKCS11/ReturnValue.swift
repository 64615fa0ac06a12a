import CPKCS11
import KeyManagement

/// A CK_RV (PKCS#11 2.40 §5.1).
struct ReturnValue: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    let rawValue: UInt
    init(rawValue: UInt) { self.rawValue = rawValue }
    init(_ value: CK_RV) { rawValue = value }

    /// CKR_AEAD_DECRYPT_FAILED of PKCS#11 3.0, which the 2.40 header does not name.
    static let aeadDecryptFailed = ReturnValue(0x42)

    var description: String {
        if let name = Self.names[rawValue] { return "CKR_\(name)" }
        let digits = String(rawValue, radix: 16)
        return rawValue >= 1 << 31 ? "CKR_VENDOR_DEFINED (0x\(digits))" : "CKR 0x\(digits)"
    }

    /// What a failed call means to a caller, where the call itself says nothing more particular.
    var code: RootError.Code {
        switch rawValue {
        case CKR_PIN_INCORRECT, CKR_PIN_INVALID, CKR_PIN_LEN_RANGE: return .pinIncorrect
        case CKR_PIN_LOCKED: return .pinLocked
        case CKR_USER_PIN_NOT_INITIALIZED: return .pinUnavailable
        case CKR_PIN_EXPIRED, CKR_USER_NOT_LOGGED_IN, CKR_USER_ANOTHER_ALREADY_LOGGED_IN, CKR_USER_TOO_MANY_TYPES,
            CKR_USER_TYPE_INVALID, CKR_TOKEN_WRITE_PROTECTED, CKR_FUNCTION_REJECTED:
            return .denied
        case CKR_KEY_FUNCTION_NOT_PERMITTED: return .disabled
        case CKR_OBJECT_HANDLE_INVALID, CKR_KEY_HANDLE_INVALID: return .keyNotFound
        case CKR_SLOT_ID_INVALID: return .tokenNotFound
        case CKR_SESSION_COUNT: return .throttled
        case CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE, Self.aeadDecryptFailed.rawValue:
            return .notAuthentic
        // ARGUMENTS_BAD: so SoftHSM2 refuses OAEP with SHA-256.
        case CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD, CKR_FUNCTION_NOT_SUPPORTED,
            CKR_KEY_SIZE_RANGE,
            CKR_TEMPLATE_INCOMPLETE, CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_READ_ONLY, CKR_ATTRIBUTE_TYPE_INVALID,
            CKR_ATTRIBUTE_VALUE_INVALID, CKR_ATTRIBUTE_SENSITIVE, CKR_ACTION_PROHIBITED:
            return .unsupported
        // What tokens answer while they are away: TPM 2 says GENERAL_ERROR, p11-kit DEVICE_ERROR, opencryptoki
        // HOST_MEMORY. None of these is the owner's word on the key.
        case CKR_GENERAL_ERROR, CKR_DEVICE_ERROR, CKR_DEVICE_REMOVED, CKR_DEVICE_MEMORY, CKR_HOST_MEMORY,
            CKR_TOKEN_NOT_PRESENT, CKR_TOKEN_NOT_RECOGNIZED, CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED,
            CKR_CRYPTOKI_NOT_INITIALIZED, CKR_FUNCTION_CANCELED, CKR_FUNCTION_FAILED:
            return .unreachable
        default: return .failed
        }
    }

    /// The session, the login or the token itself is lost: a new session, or a new C_Initialize, may bring it back.
    var isLost: Bool {
        switch rawValue {
        case CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED, CKR_DEVICE_REMOVED, CKR_DEVICE_ERROR,
            CKR_TOKEN_NOT_PRESENT, CKR_TOKEN_NOT_RECOGNIZED, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_USER_NOT_LOGGED_IN,
            CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, CKR_HOST_MEMORY, CKR_SLOT_ID_INVALID, CKR_OPERATION_ACTIVE,
            CKR_OBJECT_HANDLE_INVALID, CKR_KEY_HANDLE_INVALID:
            return true
        default: return false
        }
    }

    /// Codes by which a decryption may mean either "bad data" or "the token is gone" (measured: SoftHSM2 answers
    /// GENERAL_ERROR to a changed GCM blob, TPM 2 the same to an outage). Only a trial of the key tells.
    var isAmbiguousForDecryption: Bool {
        switch rawValue {
        case CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED, CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT,
            CKR_CRYPTOKI_NOT_INITIALIZED, CKR_USER_NOT_LOGGED_IN, CKR_KEY_FUNCTION_NOT_PERMITTED,
            CKR_OBJECT_HANDLE_INVALID, CKR_KEY_HANDLE_INVALID, CKR_FUNCTION_REJECTED:
            return false
        default: return code != .notAuthentic
        }
    }
}

/// A failure inside this module: what the caller is told, and the return value that recovery goes by.
struct Failure: Error {
    let root: RootError
    let returnValue: ReturnValue?
    /// A new C_Initialize may help although no call failed: the token, or a module's view of it, is missing.
    var mayNeedRestart = false

    init(_ call: StaticString, _ value: CK_RV) {
        let value = ReturnValue(value)
        returnValue = value
        root = RootError(value.code, "\(call): \(value)")
    }

    init(_ code: RootError.Code, _ detail: String, mayNeedRestart: Bool = false) {
        root = RootError(code, detail)
        returnValue = nil
        self.mayNeedRestart = mayNeedRestart
    }

    init(_ root: RootError) {
        self.root = root
        returnValue = nil
    }

    /// The same failure under another code.
    func recoded(_ code: RootError.Code, _ remark: String = "") -> Failure {
        Failure(copying: self, RootError(code, root.detail + (remark.isEmpty ? "" : " (\(remark))")))
    }

    private init(copying other: Failure, _ root: RootError) {
        self.root = root
        returnValue = other.returnValue
        mayNeedRestart = other.mayNeedRestart
    }

    /// The library was asked, and showed no such key; one that loses objects is asked once more.
    var isMissingKey: Bool {
        mayNeedRestart && [.destroyed, .versionDestroyed, .keyNotFound].contains(root.code)
    }

    var isRecoverable: Bool { mayNeedRestart || (returnValue?.isLost ?? false) }
}
