import Glibc
import KeyManagement
import KeyProviderPKCS11
import Testing
import VolumeFormat

/// The tokens that `Tests/tokens/setup DIR` made: LETHEFS_TEST_TOKENS is the path of DIR/tokens.tsv.
struct TestTokens {
    let directory: String
    private let uris: [String: String]

    /// Every kind of token that the suite over all of them runs on.
    static let names = ["softhsm", "nss", "nssfips", "opencryptoki", "tpm2", "p11kit"]
    /// Tokens on which a call takes milliseconds: fewer bytes are flipped there.
    static let slow: Set<String> = ["tpm2", "p11kit"]

    static let shared = TestTokens()

    struct Missing: Error, CustomStringConvertible {
        let description: String
    }

    private init() {
        let path = getenv("LETHEFS_TEST_TOKENS").map { String(cString: $0) } ?? ""
        directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        var uris: [String: String] = [:]
        for line in readFile(path).split(separator: "\n") {
            let parts = line.split(separator: "\t", maxSplits: 1)
            if parts.count == 2 { uris[String(parts[0])] = String(parts[1]) }
        }
        self.uris = uris
        // What modules read from the environment and no URI may set.
        for line in readFile(directory + "/env").split(separator: "\n") {
            let parts = line.split(separator: "=", maxSplits: 1)
            if parts.count == 2 { setenv(String(parts[0]), String(parts[1]), 1) }
        }
    }

    /// The URI of a token; a token that is not there fails the test rather than skip it.
    func uri(_ name: String) throws -> PKCS11URI {
        guard let text = uris[name] else {
            throw Missing(
                description: "no token \(name): run Tests/tokens/setup DIR and set LETHEFS_TEST_TOKENS=DIR/tokens.tsv")
        }
        return try PKCS11URI(text)
    }

    /// The same with a key's label, and perhaps a type.
    func keyURI(_ name: String, _ label: String, _ type: PKCS11URI.ObjectType? = nil) throws -> PKCS11URI {
        var uri = try uri(name)
        uri.object = label
        uri.type = type
        return uri
    }

    /// Runs `Tests/tokens/service` on the daemon behind a token.
    func service(_ name: String, _ action: String) throws {
        let script = #filePath.components(upTo: 3) + "/Tests/tokens/service"
        #expect(try run(script, [directory, name, action]).status == 0)
    }

    /// What another program does to a key: enable, disable, show, destroy.
    @discardableResult
    func otherProcess(_ uri: PKCS11URI, _ action: String) throws -> String {
        let configuration = uri.module.configuration.map { ["SOFTHSM2_CONF=\($0)"] } ?? []
        guard case .file(let pin)? = uri.pin else { throw Missing(description: "no PIN file") }
        let result = try run(
            directory + "/other-process",
            [
                uri.module.path ?? "", uri.module.functionList ?? "C_GetFunctionList", uri.module.initString ?? "",
                uri.token.token ?? "", pin, uri.object ?? "", action,
            ], adding: configuration)
        #expect(result.status == 0, "other-process \(action): \(result.output)")
        return result.output
    }
}

/// Runs a program to its end; `adding` comes before the process's own environment.
func run(
    _ program: String, _ arguments: [String], adding: [String] = []
) throws -> (status: Int32, output: String) {
    // A file, not a pipe: a daemon that a script starts would keep a pipe open.
    var name = Array("/tmp/lethefs-test-output.XXXXXX".utf8CString)
    let file = mkstemp(&name)
    guard file >= 0 else { throw TestTokens.Missing(description: "mkstemp: \(errno)") }
    defer {
        close(file)
        unlink(name)
    }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, file, 1)
    posix_spawn_file_actions_adddup2(&actions, file, 2)
    let argv = ([program] + arguments).map { strdup($0) } + [nil]
    var inherited: [UnsafeMutablePointer<CChar>?] = []
    var entry = environ
    while let text = entry.pointee {
        let names = adding.compactMap { $0.split(separator: "=").first.map { "\($0)=" } }
        if !names.contains(where: { String(cString: text).hasPrefix($0) }) { inherited.append(strdup(text)) }
        entry += 1
    }
    let environment = adding.map { strdup($0) } + inherited + [nil]
    defer { for text in argv + environment { free(text) } }
    var child = pid_t()
    let failure = posix_spawn(&child, program, &actions, nil, argv, environment)
    guard failure == 0 else {
        throw TestTokens.Missing(description: "\(program): \(String(cString: strerror(failure)))")
    }
    var status: Int32 = 0
    while waitpid(child, &status, 0) < 0, errno == EINTR {}
    return (
        status & 0x7F == 0 ? status >> 8 & 0xFF : -1,
        readFile(name.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } } ?? "")
    )
}

/// A file's text; empty if there is none.
func readFile(_ path: String) -> String {
    guard let file = fopen(path, "r") else { return "" }
    defer { fclose(file) }
    var text: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
        let count = fread(&chunk, 1, chunk.count, file)
        if count == 0 { return String(decoding: text, as: UTF8.self) }
        text += chunk.prefix(count)
    }
}

func writeFile(_ path: String, _ text: String, mode: mode_t = 0o600) {
    unlink(path)
    guard let file = fopen(path, "w") else { return }
    fputs(text, file)
    fclose(file)
    chmod(path, mode)
}

extension String {
    /// The path without its last `count` components.
    func components(upTo count: Int) -> String {
        split(separator: "/").dropLast(count).reduce("") { "\($0)/\($1)" }
    }
}

/// The code of the error that `body` throws.
func code(_ body: () throws -> Void) -> RootError.Code? {
    do {
        try body()
        return nil
    } catch let error as RootError {
        return error.code
    } catch {
        return .failed
    }
}

/// A context like those of real volumes.
func testContext(version: UInt32 = 1) -> KEKContext {
    KEKContext(
        volume: UniqueID(high: 0x0123_4567_89AB_CDEF, low: 0xFEDC_BA98_7654_3210), zone: .root,
        kekVersion: KeyVersion(rawValue: version))
}

func uniqueLabel(_ purpose: String) -> String { "\(purpose) \(UInt32.random(in: 0...UInt32.max))" }

extension PKCS11URI {
    /// As a user writes it, PIN source included.
    var full: String { textWithPINSource }
}
