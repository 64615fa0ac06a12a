import CPKCS11
import KeyManagement
import Secrets

/// Session management (PKCS#11 2.40 §5.6).
extension Cryptoki {
    /// Opens a session: read-only unless objects are to be made or changed, since write-protected tokens allow no other.
    func openSession(_ slot: CK_SLOT_ID, writable: Bool) throws(Failure) -> CK_SESSION_HANDLE {
        var handle: CK_SESSION_HANDLE = 0
        let flags = CKF_SERIAL_SESSION | (writable ? CKF_RW_SESSION : 0)
        try check("C_OpenSession") { functions.pointee.C_OpenSession?(slot, flags, nil, nil, &handle) }
        return handle
    }

    func closeSession(_ handle: CK_SESSION_HANDLE) throws(Failure) {
        try check("C_CloseSession") { functions.pointee.C_CloseSession?(handle) }
    }

    func isUserLoggedIn(_ handle: CK_SESSION_HANDLE) throws(Failure) -> Bool {
        var info = CK_SESSION_INFO()
        try check("C_GetSessionInfo") { functions.pointee.C_GetSessionInfo?(handle, &info) }
        return info.state == CKS_RO_USER_FUNCTIONS || info.state == CKS_RW_USER_FUNCTIONS
    }

    /// Logs in; being logged in already is as good. Without a PIN the token asks on its own keypad.
    func login(_ handle: CK_SESSION_HANDLE, as user: CK_USER_TYPE, pin: borrowing SecretBuffer) throws(Failure) {
        try allowingLogin { () throws(Failure) in
            try pin.withBytes { (bytes) throws(Failure) in
                let start = UnsafeMutableRawPointer(mutating: bytes.baseAddress)?.assumingMemoryBound(to: UInt8.self)
                try check("C_Login") { functions.pointee.C_Login?(handle, user, start, CK_ULONG(bytes.count)) }
            }
        }
    }

    func loginOnPINPad(_ handle: CK_SESSION_HANDLE) throws(Failure) {
        try allowingLogin { () throws(Failure) in
            try check("C_Login") { functions.pointee.C_Login?(handle, CKU_USER, nil, 0) }
        }
    }

    private func allowingLogin(_ body: () throws(Failure) -> Void) throws(Failure) {
        do {
            try body()
        } catch {
            guard error.returnValue?.rawValue == CKR_USER_ALREADY_LOGGED_IN else { throw error }
        }
    }
}

/// A session of a logged-in user on one token. It lives on its module's thread.
///
/// Not closed by a `deinit`: its handle means nothing after C_Finalize, and the module keeps account of that.
struct Session {
    let cryptoki: Cryptoki
    let handle: CK_SESSION_HANDLE
    let slot: CK_SLOT_ID
    let token: TokenInfo

    /// Runs `body` in another session of the same token, which sees the token anew. The login holds for all sessions.
    func withFreshSession<R>(writable: Bool, _ body: (Session) throws(Failure) -> R) throws(Failure) -> R {
        let other = try cryptoki.openSession(slot, writable: writable)
        defer { try? cryptoki.closeSession(other) }
        return try body(Session(cryptoki: cryptoki, handle: other, slot: slot, token: token))
    }
}
