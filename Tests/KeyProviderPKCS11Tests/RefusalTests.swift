import Glibc
import KeyManagement
import KeyProviderPKCS11
import Secrets
import Testing

extension Tokens {
    /// Modules and PIN files that are not to be trusted, or not there.
    @Suite(.serialized) struct Refusals {
        let provider = PKCS11Provider()

        private func withDirectory(_ body: (String) throws -> Void) throws {
            var name = Array("/tmp/lethefs-refusals.XXXXXX".utf8CString)
            let path = name.withUnsafeMutableBufferPointer { buffer in
                buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) }
            }
            guard let path else { throw TestTokens.Missing(description: "mkdtemp") }
            defer { _ = try? run("/bin/rm", ["-rf", path]) }
            try body(path)
        }

        private func openCode(_ query: String) -> RootError.Code? {
            code { _ = try provider.open("pkcs11:token=t;object=o?\(query)") }
        }

        @Test func modules() throws {
            try withDirectory { directory in
                #expect(openCode("module-path=\(directory)/none.so") == .moduleUnavailable)
                #expect(openCode("module-path=\(directory)") == .moduleUnavailable)
                writeFile("\(directory)/text.so", "not a library", mode: 0o755)
                #expect(openCode("module-path=\(directory)/text.so") == .moduleUnavailable)
                #expect(try run("/bin/cp", ["/usr/lib/softhsm/libsofthsm2.so", "\(directory)/copy.so"]).status == 0)
                for mode: mode_t in [0o775, 0o757] {
                    chmod("\(directory)/copy.so", mode)
                    #expect(openCode("module-path=\(directory)/copy.so") == .moduleUnavailable)
                }
                #expect(openCode("module-path=/lib/x86_64-linux-gnu/libc.so.6") == .moduleUnavailable)
                #expect(openCode("module-name=nosuchmodule") == .moduleUnavailable)
                #expect(openCode("module-name=softhsm2") == .tokenNotFound)
                #expect(openCode("pin-source=/a") == .invalidURI)
                // NSS cannot be started without its init string.
                let nss = try TestTokens.shared.uri("nss").module.path ?? ""
                #expect(openCode("module-path=\(nss)") == .moduleUnavailable)
            }
        }

        @Test func pinFiles() throws {
            try withDirectory { directory in
                // Nobody is logged in yet on a token of our own.
                var uri = try PKCS11URI(try EmbeddedToken.create(in: directory + "/home", label: "pins"))
                guard case .file(let good)? = uri.pin else { return }
                let pin = readFile(good)
                func attempt(_ source: PINSource?) -> RootError.Code? {
                    uri.pin = source
                    return code { _ = try provider.open(uri.full) }
                }
                let file = "\(directory)/pin"
                #expect(attempt(.file(file)) == .pinUnavailable)
                writeFile(file, pin, mode: 0o640)
                #expect(attempt(.file(file)) == .pinUnavailable)
                writeFile(file, pin, mode: 0o604)
                #expect(attempt(.file(file)) == .pinUnavailable)
                writeFile(file, "\n")
                #expect(attempt(.file(file)) == .pinUnavailable)
                writeFile(file, String(repeating: "1", count: 300))
                #expect(attempt(.file(file)) == .pinUnavailable)
                #expect(attempt(.file(directory)) == .pinUnavailable)
                unlink(file)
                mkfifo(file, 0o600)
                #expect(attempt(.file(file)) == .pinUnavailable)
                writeFile(file, pin)
                if geteuid() == 0 {
                    chown(file, 12345, 0)
                    #expect(attempt(.file(file)) == .pinUnavailable)
                    chown(file, 0, 0)
                }
                writeFile(file, "wrong-pin")
                #expect(attempt(.file(file)) == .pinIncorrect)
                #expect(attempt(.file(file)) == .pinIncorrect)
                writeFile(file, pin + "\n", mode: 0o400)
                #expect(attempt(.file(file)) == .keyNotFound)
            }
        }

        @Test func embeddedTokens() throws {
            try withDirectory { directory in
                let home = directory + "/state/tokens"
                let first = try PKCS11URI(try EmbeddedToken.create(in: home, label: "volume 1/é"))
                let second = try PKCS11URI(try EmbeddedToken.create(in: home, label: "second"))
                #expect(code { _ = try EmbeddedToken.create(in: home, label: "second") } == .denied)
                for label in ["", "a\n", "trailing ", String(repeating: "a", count: 33)] {
                    #expect(code { _ = try EmbeddedToken.create(in: home, label: label) } == .invalidURI)
                }
                let keys = try [first, second].map { try provider.create($0.full) }
                for (key, uri) in zip(keys, [first, second]) {
                    #expect(try key.describe().owner["token"] == uri.token.token)
                    // The stored URI has no PIN; the embedded token's is found by it.
                    #expect(!key.uri.contains("pin"))
                    let kek = SecretKey { $0.copyBytes(from: (0..<32).map { UInt8($0) }) }
                    let wrap = try key.wrap(kek, context: testContext())
                    #expect(try provider.open(key.uri).unwrap(wrap, context: testContext()).isEqual(kek))
                }
                let modes = try run("/usr/bin/find", [directory + "/state", "-printf", "%m %y %P\n"]).output
                for line in modes.split(separator: "\n") {
                    #expect(line.hasPrefix("700 d") || line.hasPrefix("600 f"), "\(line)")
                }
                #expect(!modes.contains("staging"))
                guard case .file(let pin)? = first.pin else { return }
                #expect(readFile(pin).count >= 24 && readFile(pin) != readFile(pin.replacing(".pin", with: ".so-pin")))
            }
        }

        /// SoftHSM2 holds an object whose file it once failed to read for gone, for as long as its library stays initialised: that must
        /// not be the last word on a CMK.
        @Test func objectThatCouldNotBeReadForAMoment() throws {
            try withDirectory { directory in
                let key = try provider.create(
                    try PKCS11URI(try EmbeddedToken.create(in: directory + "/home", label: "moments")).full)
                let kek = SecretKey { $0.copyBytes(from: (0..<32).map { UInt8($0) }) }
                let wrap = try key.wrap(kek, context: testContext())
                let files = try run(
                    "/usr/bin/find", [directory, "-name", "*.object", "!", "-name", "token.object"]
                ).output.split(separator: "\n").map(String.init)
                #expect(!files.isEmpty)
                // A directory opens, and cannot be read.
                for file in files {
                    #expect(rename(file, file + ".away") == 0 && mkdir(file, 0o700) == 0)
                }
                #expect(code { _ = try key.unwrap(wrap, context: testContext()) } == .destroyed)
                for file in files {
                    #expect(rmdir(file) == 0 && rename(file + ".away", file) == 0)
                }
                #expect(try key.unwrap(wrap, context: testContext()).isEqual(kek))
            }
        }

        /// Version keys that the library has lost sight of are destroyed all the same: a shredding must not pass over one.
        @Test func versionKeyThatCouldNotBeReadForAMoment() throws {
            try withDirectory { directory in
                let key = try provider.create(
                    try PKCS11URI(try EmbeddedToken.create(in: directory + "/home", label: "versions")).full)
                let objects = {
                    Set(
                        try run("/usr/bin/find", [directory, "-name", "*.object", "!", "-name", "token.object"])
                            .output.split(separator: "\n").map(String.init))
                }
                let before = try objects()
                let kek = SecretKey { $0.copyBytes(from: (0..<32).map { UInt8($0) }) }
                let wrap = try key.wrapVersion(kek, context: testContext())
                let file = try #require(try objects().subtracting(before).first)
                #expect(rename(file, file + ".away") == 0 && mkdir(file, 0o700) == 0)
                #expect(code { _ = try key.unwrap(wrap, context: testContext()) } == .versionDestroyed)
                #expect(rmdir(file) == 0 && rename(file + ".away", file) == 0)
                #expect(try key.destroyVersionKeys(testContext(), except: []) == 1)
                #expect(try objects() == before)
                #expect(code { _ = try key.unwrap(wrap, context: testContext()) } == .versionDestroyed)
            }
        }

        /// Processes that make tokens in one directory at the same time: here, this one and its children.
        @Test func embeddedTokensOfManyProcesses() throws {
            try withDirectory { directory in
                let children = (0..<4).map { index in
                    let child = fork()
                    if child == 0 {
                        alarm(60)
                        _exit((try? EmbeddedToken.create(in: directory, label: "token \(index % 3)")) == nil ? 1 : 0)
                    }
                    return child
                }
                let codes = children.map { child in
                    var status: Int32 = -1
                    while waitpid(child, &status, 0) < 0, errno == EINTR {}
                    return status
                }
                // Two wanted the same label: one of them is refused.
                #expect(codes.count { $0 == 0 } == 3 && codes.count { $0 == 256 } == 1)
                for index in 0..<3 {
                    let conf = "x-conf=\(directory)/softhsm2.conf&module-name=softhsm2"
                    #expect(throws: Never.self) {
                        try provider.create("pkcs11:token=token%20\(index);object=k?\(conf)")
                    }
                }
            }
        }
    }
}
