import Ciphers
import KeyManagement
import KeyProviderPKCS11
import Secrets
import Testing
import VolumeFormat

/// Tests that call tokens: one at a time, since modules and their environment are one a process.
@Suite(.serialized) enum Tokens {}

extension Tokens {
    @Suite(.serialized) struct Lifecycle {
        static let cases: [(String, PKCS11URI.ObjectType?)] =
            TestTokens.names.map { ($0, nil) }
            + [("softhsm", .privateKey), ("nss", .privateKey), ("opencryptoki", .secretKey)]

        let provider = PKCS11Provider()

        @Test(arguments: cases)
        func fromCreationToDestruction(name: String, type: PKCS11URI.ObjectType?) throws {
            let uri = try TestTokens.shared.keyURI(name, uniqueLabel("cmk"), type)
            let key = try provider.create(uri.full)
            defer { try? key.destroy() }
            #expect(!key.uri.contains("pin-"))
            #expect(code { _ = try provider.create(uri.full) } == .denied)

            let facts = try key.describe()
            #expect(facts.sensitive && !facts.extractable && facts.enabled)
            #expect(facts.label == uri.object && facts.owner["token"] == uri.token.token)
            print("\(name): \(facts.keyType), \(facts.wrapAlgorithm), \(facts.owner["library"] ?? "")")

            // The URI that is stored opens the key again, given the PIN.
            var stored = try PKCS11URI(key.uri)
            #expect(stored.identity == key.uri && stored.id != nil)
            stored.pin = uri.pin
            let again = try provider.open(stored.full)

            try checkWrapping(key, again, isSlow: TestTokens.slow.contains(name) || type == .privateKey)
            try checkSwitching(key, again, uri, isEnforced: name != "tpm2")

            let kek = try RandomBytes.key()
            let wrap = try key.wrap(kek, context: testContext())
            try key.destroy()
            #expect(code { _ = try key.unwrap(wrap, context: testContext()) } == .destroyed)
            #expect(code { try key.destroy() } == .destroyed)
            #expect(code { _ = try provider.open(stored.full) } == .keyNotFound)
        }

        private func checkWrapping(
            _ key: any CustomerMasterKey, _ again: any CustomerMasterKey, isSlow: Bool
        ) throws {
            let context = testContext()
            let kek = try RandomBytes.key()
            let wrap = try key.wrap(kek, context: context)
            #expect(wrap.blob.count <= RootWrap.maximumBlob)
            #expect(try key.unwrap(wrap, context: context).isEqual(kek))
            #expect(try again.unwrap(wrap, context: context).isEqual(kek))

            var others = [testContext(version: 2), context, context, context]
            others[1].share = 1
            others[2].zone = ZoneID(rawValue: 1)
            others[3].volume.low ^= 1
            for other in others {
                #expect(code { _ = try key.unwrap(wrap, context: other) } == .notAuthentic)
            }
            for algorithm in WrapAlgorithm.allCases where algorithm != wrap.algorithm {
                let changed = RootWrap(algorithm: algorithm, blob: wrap.blob)
                // A mechanism that the token lacks is refused as such.
                let code = code { _ = try key.unwrap(changed, context: context) }
                #expect(code == .notAuthentic || code == .unsupported, "\(algorithm): \(code as Any)")
            }
            for index in stride(from: 0, to: wrap.blob.count, by: isSlow ? 23 : 1) {
                var changed = wrap
                changed.blob[index] ^= 1 << (index % 8)
                #expect(code { _ = try key.unwrap(changed, context: context) } == .notAuthentic, "byte \(index)")
            }
            for count in [0, 1, 12, 28, wrap.blob.count - 1] {
                let short = RootWrap(algorithm: wrap.algorithm, blob: Array(wrap.blob.prefix(count)))
                #expect(code { _ = try key.unwrap(short, context: context) } == .notAuthentic, "\(count) bytes")
            }
            let long = RootWrap(algorithm: wrap.algorithm, blob: wrap.blob + [0])
            #expect(code { _ = try key.unwrap(long, context: context) } == .notAuthentic)
            #expect(try key.unwrap(wrap, context: context).isEqual(kek))
            let times = try (0..<9).map { _ in
                try ContinuousClock().measure { _ = try key.unwrap(wrap, context: context) }
            }
            print("  \(wrap.algorithm): median unwrap \(times.sorted()[4])")
        }

        private func checkSwitching(
            _ key: any CustomerMasterKey, _ again: any CustomerMasterKey, _ uri: PKCS11URI, isEnforced: Bool
        ) throws {
            #expect(try again.isUsableAtOwner())
            let context = testContext()
            let kek = try RandomBytes.key()
            let wrap = try key.wrap(kek, context: context)
            try key.setEnabled(false)
            #expect(code { _ = try key.unwrap(wrap, context: context) } == .disabled)
            #expect(code { _ = try again.unwrap(wrap, context: context) } == .disabled)
            #expect(code { _ = try again.wrap(kek, context: context) } == .disabled)
            #expect(try again.describe().enabled == false)
            #expect(try again.isUsableAtOwner() == !isEnforced)
            #expect(try TestTokens.shared.otherProcess(uri, "show").contains("decrypt=0"))
            try again.setEnabled(true)
            #expect(try key.unwrap(wrap, context: context).isEqual(kek))
            #expect(try TestTokens.shared.otherProcess(uri, "show").contains("decrypt=1"))
            // Another program switches it.
            try TestTokens.shared.otherProcess(uri, "disable")
            #expect(code { _ = try key.unwrap(wrap, context: context) } == .disabled)
            try TestTokens.shared.otherProcess(uri, "enable")
            #expect(try key.unwrap(wrap, context: context).isEqual(kek))
        }
    }
}

extension SecretKey {
    borrowing func isEqual(_ other: borrowing SecretKey) -> Bool {
        withBytes { left in other.withBytes { left.elementsEqual($0) } }
    }
}
