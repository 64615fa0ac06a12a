import CPKCS11
import KeyManagement
import Synchronization

/// A module's function list. Calls go through `check`, so that each failure names its call.
///
/// Used on the module's own thread only: several modules crash, or block for ever, when called from many.
struct Cryptoki: @unchecked Sendable {
    // The list is static data of a library that is never unloaded.
    let functions: UnsafeMutablePointer<CK_FUNCTION_LIST>
    let running: RunningCall
    /// Known once the library is initialised.
    var quirks = ModuleQuirks(nil)

    /// Runs one call; a function that the list lacks counts as CKR_FUNCTION_NOT_SUPPORTED.
    func check(_ name: StaticString, _ body: () -> CK_RV?) throws(Failure) {
        running.set(name)
        let value = body() ?? CKR_FUNCTION_NOT_SUPPORTED
        running.set(nil)
        guard value == CKR_OK else { throw Failure(name, value) }
    }
}

/// The call that a module is in now; a caller that gives up names it.
final class RunningCall: Sendable {
    private let name: Mutex<StaticString?> = Mutex(nil)
    func set(_ name: StaticString?) { self.name.withLock { $0 = name } }
    var current: StaticString? { name.withLock { $0 } }
}
