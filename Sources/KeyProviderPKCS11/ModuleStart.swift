import CLinux
import CPKCS11
import Glibc
import KeyManagement

/// What a module is started with. A library has one state a process: to start it differently, it is finalised first.
struct ModuleStart: Hashable, Sendable {
    var functionList = "C_GetFunctionList"
    var initString: String?
    var configuration: String?

    init(_ module: PKCS11URI.Module) {
        functionList = module.functionList ?? functionList
        initString = module.initString
        configuration = module.configuration
    }

    /// General-purpose functions (PKCS#11 2.40 §5.4): C_Initialize. A module that somebody has initialised already is fine;
    /// with `replacing`, it is begun anew: a forked child inherits its parent's state in some modules (SoftHSM2). `.timedOut` where
    /// modules that start with another configuration do not come to an end.
    func initialize(_ cryptoki: Cryptoki, replacing: Bool) throws(Failure) {
        try ModuleEnvironment.shared.with(configuration) { () throws(Failure) in
            let text = initString.map { strdup($0) } ?? nil
            // Kept for the module's life, since NSS may keep pointers into it.
            // Longer than CK_C_INITIALIZE_ARGS: NSS's own structure has one more field, which has to be null.
            let memory = UnsafeMutableRawBufferPointer.allocate(
                byteCount: MemoryLayout<CK_C_INITIALIZE_ARGS>.size + 64, alignment: 16)
            memory.initializeMemory(as: UInt8.self, repeating: 0)
            memory.baseAddress?.storeBytes(
                of: CK_C_INITIALIZE_ARGS(
                    CreateMutex: nil, DestroyMutex: nil, LockMutex: nil, UnlockMutex: nil, flags: CKF_OS_LOCKING_OK,
                    pReserved: UnsafeMutableRawPointer(text)), as: CK_C_INITIALIZE_ARGS.self)
            do throws(Failure) {
                try cryptoki.check("C_Initialize") { cryptoki.functions.pointee.C_Initialize?(memory.baseAddress) }
            } catch {
                guard error.returnValue?.rawValue == CKR_CRYPTOKI_ALREADY_INITIALIZED else { throw error }
                guard replacing else { return }
                try cryptoki.check("C_Finalize") { cryptoki.functions.pointee.C_Finalize?(nil) }
                try cryptoki.check("C_Initialize") { cryptoki.functions.pointee.C_Initialize?(memory.baseAddress) }
            }
        }
    }
}
