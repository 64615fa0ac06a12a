import CLinux
import CPKCS11
import Glibc
import KeyManagement

/// The shared library of a module: found, checked, and loaded for good.
enum ModuleFile {
    private static let triples = ["x86_64-linux-gnu", "aarch64-linux-gnu"]

    /// Where `module-name` is looked up: p11-kit's module directories, then the system's libraries.
    static var directories: [String] {
        let roots = ["/usr/lib", "/usr/lib64", "/usr/local/lib"] + triples.map { "/usr/lib/\($0)" }
        return roots.map { $0 + "/pkcs11" } + roots.map { $0 + "/softhsm" } + roots
    }

    /// The canonical path of the library that a URI names. Throws `.moduleUnavailable` with the reason.
    static func resolve(_ module: PKCS11URI.Module) throws(RootError) -> String {
        if let path = module.path { return try check(path) }
        guard let name = module.name else { throw PKCS11URI.invalid("neither module-path nor module-name is given") }
        for directory in directories {
            for file in ["\(directory)/\(name).so", "\(directory)/lib\(name).so"] where access(file, F_OK) == 0 {
                return try check(file, rootOnly: true)
            }
        }
        throw RootError(.moduleUnavailable, "no module named \(name) in the system's directories")
    }

    /// A library runs with all our rights: only root and ourselves may have been able to write it.
    static func check(_ path: String, rootOnly: Bool = false) throws(RootError) -> String {
        guard let resolved = realpath(path, nil) else {
            throw unavailable(path, String(cString: strerror(errno)))
        }
        defer { free(resolved) }
        let real = String(cString: resolved)
        var status = stat()
        guard stat(real, &status) == 0 else { throw unavailable(path, String(cString: strerror(errno))) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw unavailable(path, "not a regular file") }
        guard status.st_uid == 0 || (!rootOnly && status.st_uid == geteuid()) else {
            throw unavailable(path, "owned by user \(status.st_uid)\(rootOnly ? "" : ", neither by us nor by root")")
        }
        guard status.st_mode & 0o022 == 0 else { throw unavailable(path, "writable by group or others") }
        return real
    }

    /// Loads the library and keeps it: unloading modules that have threads or exit handlers crashes.
    static func load(_ path: String) throws(Failure) -> UnsafeMutableRawPointer {
        guard let library = dlopen(path, RTLD_NOW | RTLD_LOCAL) else {
            throw Failure(.moduleUnavailable, dlerror().map { String(cString: $0) } ?? "\(path) cannot be loaded")
        }
        return library
    }

    /// The function list by the symbol `name`.
    static func functions(
        of library: UnsafeMutableRawPointer, _ name: String
    ) throws(Failure) -> UnsafeMutablePointer<CK_FUNCTION_LIST> {
        typealias Getter = @convention(c) (UnsafeMutablePointer<UnsafeMutablePointer<CK_FUNCTION_LIST>?>?) -> CK_RV
        guard let symbol = dlsym(library, name) else {
            throw Failure(.moduleUnavailable, "the module has no \(name)")
        }
        var list: UnsafeMutablePointer<CK_FUNCTION_LIST>?
        guard unsafeBitCast(symbol, to: Getter.self)(&list) == CKR_OK, let list, list.pointee.version.major >= 2 else {
            throw Failure(.moduleUnavailable, "\(name) gives no PKCS#11 2 function list")
        }
        return list
    }

    private static func unavailable(_ path: String, _ reason: String) -> RootError {
        RootError(.moduleUnavailable, "module \(path): \(reason)")
    }
}
