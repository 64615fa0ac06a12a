import Ciphers
import Glibc
import KeyManagement
import KeyProviderPKCS11
import Secrets
import Testing
import VolumeFormat

extension Tokens {
    @Suite(.serialized) struct Outages {
        let provider = PKCS11Provider()

        /// The daemon behind the token is killed and comes back.
        @Test(arguments: ["tpm2", "p11kit"])
        func recoversFromRestart(name: String) throws {
            let key = try provider.create(try TestTokens.shared.keyURI(name, uniqueLabel("outage")).full)
            defer { try? key.destroy() }
            let kek = try RandomBytes.key()
            let wrap = try key.wrap(kek, context: testContext())
            try TestTokens.shared.service(name, "stop")
            for _ in 0..<2 {
                #expect(code { _ = try key.unwrap(wrap, context: testContext()) } == .unreachable)
            }
            try TestTokens.shared.service(name, "start")
            #expect(try key.unwrap(wrap, context: testContext()).isEqual(kek))
            // Back before anybody noticed.
            try TestTokens.shared.service(name, "stop")
            try TestTokens.shared.service(name, "start")
            #expect(try key.unwrap(wrap, context: testContext()).isEqual(kek))
        }

        /// A forked child starts its libraries anew, and the parent goes on.
        @Test(arguments: ["softhsm", "nss", "opencryptoki", "p11kit"])
        func worksInAForkedChild(name: String) throws {
            let key = try provider.create(try TestTokens.shared.keyURI(name, uniqueLabel("fork")).full)
            defer { try? key.destroy() }
            let kek = try RandomBytes.key()
            let wrap = try key.wrap(kek, context: testContext())
            let child = fork()
            if child == 0 {
                alarm(20)
                _exit((try? key.unwrap(wrap, context: testContext())) == nil ? 1 : 0)
            }
            var status: Int32 = -1
            while waitpid(child, &status, 0) < 0, errno == EINTR {}
            #expect(status == 0)
            #expect(try key.unwrap(wrap, context: testContext()).isEqual(kek))
        }

        /// Requests from many threads take turns.
        @Test(arguments: ["softhsm", "opencryptoki"])
        func servesManyThreads(name: String) async throws {
            let key = try provider.create(try TestTokens.shared.keyURI(name, uniqueLabel("threads")).full)
            defer { try? key.destroy() }
            let wrap = try key.wrap(try RandomBytes.key(), context: testContext())
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<8 {
                    group.addTask { for _ in 0..<20 { _ = try key.unwrap(wrap, context: testContext()) } }
                }
                try await group.waitForAll()
            }
        }

        @Test(arguments: TestTokens.names)
        func missingTokenAndKey(name: String) throws {
            let uri = try TestTokens.shared.keyURI(name, uniqueLabel("none"))
            #expect(code { _ = try provider.open(uri.full) } == .keyNotFound)
            var other = uri
            other.token.token = "no such token"
            #expect(code { _ = try provider.open(other.full) } == .tokenNotFound)
            #expect(code { _ = try provider.create(other.full) } == .tokenNotFound)
        }
    }
}
