import Ciphers
import Glibc
import KeyManagement
import KeyProviderPKCS11
import Secrets
import Testing
import VolumeFormat

/// What a module does when it hangs, fails or lies: `Tests/tokens/interposer.c` around SoftHSM2.
struct Interposer {
    private var control: String { TestTokens.shared.directory + "/interposed/control" }

    func reset() {
        for name in ["hang", "extractable", "log"] + calls.flatMap({ ["inject.\($0)", "hang.\($0)"] }) {
            unlink("\(control)/\(name)")
        }
    }
    func inject(_ call: String, _ value: UInt, times: Int = 1) {
        writeFile("\(control)/inject.\(call)", "\(value) \(times)")
    }
    func set(_ name: String) { writeFile("\(control)/\(name)", "") }
    func clear(_ name: String) { unlink("\(control)/\(name)") }
    /// How often each call was made since the last reset.
    func count(_ call: String) -> Int { readFile("\(control)/log").split(separator: "\n").count { $0 == call } }

    private var calls: [String] {
        [
            "C_Initialize", "C_Finalize", "C_GetSlotList", "C_OpenSession", "C_Login", "C_FindObjectsInit",
            "C_GetAttributeValue", "C_SetAttributeValue", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt",
        ]
    }
}

extension Tokens {
    @Suite(.serialized) struct Interposed {
        let provider = PKCS11Provider(options: PKCS11Options(timeoutSeconds: 1))
        let module = Interposer()

        private func withKey(_ body: (any CustomerMasterKey, PKCS11URI) throws -> Void) throws {
            module.reset()
            defer { module.reset() }
            let uri = try TestTokens.shared.keyURI("interposed", uniqueLabel("cmk"))
            let key = try provider.create(uri.full)
            defer {
                module.reset()
                try? key.destroy()
            }
            var stored = try PKCS11URI(key.uri)
            stored.pin = uri.pin
            try body(key, stored)
        }

        @Test func hangingCallTimesOutAndThingsGoOn() throws {
            try withKey { key, _ in
                let kek = try RandomBytes.key()
                let wrap = try key.wrap(kek, context: testContext())
                let live = SecretArena.shared.liveSlots
                module.set("hang")
                let clock = ContinuousClock()
                let first = clock.measure {
                    #expect(code { _ = try key.unwrap(wrap, context: testContext()) } == .timedOut)
                }
                #expect(first > .milliseconds(900) && first < .seconds(3))
                let second = clock.measure {
                    #expect(code { _ = try key.unwrap(wrap, context: testContext()) } == .timedOut)
                    #expect(code { _ = try key.describe() } == .timedOut)
                }
                #expect(second < .milliseconds(100), "a stuck module fails fast")
                do {
                    _ = try key.describe()
                } catch let error as RootError {
                    #expect(error.detail.hasPrefix("C_Decrypt "))
                }
                module.clear("hang")
                usleep(300_000)
                // The key that the abandoned call returned is gone.
                #expect(SecretArena.shared.liveSlots == live)
                #expect(try key.unwrap(wrap, context: testContext()).isEqual(kek))
            }
        }

        /// Lost sessions and tokens are won back without the caller's notice.
        @Test(
            arguments: ["C_FindObjectsInit", "C_GetAttributeValue", "C_DecryptInit", "C_Decrypt"],
            [0x05, 0x30, 0x32, 0xB0, 0xB3, 0xE0, 0x101, 0x190] as [UInt])
        func recovers(call: String, value: UInt) throws {
            try withKey { key, _ in
                let kek = try RandomBytes.key()
                let wrap = try key.wrap(kek, context: testContext())
                for times in 1...2 {
                    module.inject(call, value, times: times)
                    #expect(try key.unwrap(wrap, context: testContext()).isEqual(kek))
                }
                module.inject(call, value, times: 1000)
                let failed = code { _ = try key.unwrap(wrap, context: testContext()) }
                #expect(failed == (value == 0x101 ? .denied : .unreachable))
                #expect(module.count("C_Initialize") <= 4, "recovery is bounded")
                module.reset()
                #expect(try key.unwrap(wrap, context: testContext()).isEqual(kek))
            }
        }

        @Test(
            arguments: [
                (0x68, .disabled), (0x60, .unreachable), (0x70, .unsupported), (0x200, .denied), (0xB1, .throttled),
                (0x40, .notAuthentic), (0x8000_0001, .failed),
            ] as [(UInt, RootError.Code)])
        func mapsCodes(value: UInt, expected: RootError.Code) throws {
            try withKey { key, _ in
                let wrap = try key.wrap(try RandomBytes.key(), context: testContext())
                module.inject("C_DecryptInit", value, times: 1000)
                let code = code { _ = try key.unwrap(wrap, context: testContext()) }
                #expect(code == expected || (value == 0x60 && code == .keyNotFound))
            }
        }

        /// Whether the token still uses a key: only a refusal is a no. What is no answer is no answer here, too.
        @Test(
            arguments: [
                (0x68, nil), (0x63, nil), (0x30, .unreachable), (0x101, .denied), (0xB1, .throttled),
                (0x40, .notAuthentic), (0x70, .unsupported), (0x8000_0001, .failed),
            ] as [(UInt, RootError.Code?)])
        func isUsableAtOwner(value: UInt, expected: RootError.Code?) throws {
            try withKey { key, _ in
                var isUsable: Bool?
                let ask = { isUsable = try key.isUsableAtOwner() }
                #expect(code(ask) == nil && isUsable == true)
                isUsable = nil
                module.inject("C_DecryptInit", value, times: 1000)
                #expect(code(ask) == expected)
                #expect(isUsable == (expected == nil ? false : nil))
                module.inject("C_DecryptInit", 0x30)
                #expect(code(ask) == nil && isUsable == true, "an outage of a moment")
            }
        }

        /// A module that hangs as it is started holds up no other that starts with the same environment, and those with another one not for ever.
        @Test func aModuleThatHangsAsItStarts() throws {
            module.reset()
            defer { module.reset() }
            let directory = TestTokens.shared.directory + "/interposed"
            var hung = try TestTokens.shared.keyURI("interposed", "none")
            hung.module.configuration = nil
            module.set("hang.C_Initialize")
            #expect(code { _ = try provider.open(hung.full) } == .timedOut)
            // A library of its own, which nobody has started yet.
            let copy = directory + "/another-\(UInt32.random(in: 0...UInt32.max)).so"
            #expect(try run("/bin/cp", [directory + "/libsofthsm2.so", copy]).status == 0)
            defer { unlink(copy) }
            let patient = PKCS11Provider(options: PKCS11Options(timeoutSeconds: 20))
            var other = hung
            other.module.path = copy
            let clock = ContinuousClock()
            let same = clock.measure { #expect(code { _ = try patient.open(other.full) } == .tokenNotFound) }
            #expect(same < .seconds(2))
            other.module.configuration = directory + "/softhsm2.conf"
            let another = clock.measure { #expect(code { _ = try patient.open(other.full) } == .timedOut) }
            #expect(another < .seconds(10))
            module.reset()
            usleep(300_000)
            #expect(code { _ = try patient.open(other.full) } == .keyNotFound)
        }

        @Test func triesAWrongPINOnce() throws {
            try withKey { _, uri in
                var wrong = uri
                let file = TestTokens.shared.directory + "/interposed/wrong-pin"
                writeFile(file, "9999")
                wrong.pin = .file(file)
                // Creating the key has logged in. A login belongs to the whole process: the one that is there has to go first.
                let before = module.count("C_Login")
                for _ in 0..<2 {
                    module.inject("C_FindObjectsInit", 0x190, times: 2)
                    #expect(code { _ = try provider.open(wrong.full) } == .pinIncorrect)
                    // Once, and never again with that PIN.
                    #expect(module.count("C_Login") == before + 1)
                }
                #expect(code { _ = try provider.open(uri.full) } == nil)
            }
        }

        @Test func destroysAKeyThatIsNotAsAskedFor() throws {
            module.reset()
            defer { module.reset() }
            let uri = try TestTokens.shared.keyURI("interposed", uniqueLabel("lie"))
            module.set("extractable")
            #expect(code { _ = try provider.create(uri.full) } == .unsupported)
            module.reset()
            #expect(code { _ = try provider.open(uri.full) } == .keyNotFound)
        }

        @Test func namesCallAndCode() throws {
            try withKey { key, _ in
                let wrap = try key.wrap(try RandomBytes.key(), context: testContext())
                module.inject("C_DecryptInit", 0x68)
                do {
                    _ = try key.unwrap(wrap, context: testContext())
                    Issue.record("no error")
                } catch let error as RootError {
                    #expect(error.detail == "C_DecryptInit: CKR_KEY_FUNCTION_NOT_PERMITTED")
                }
            }
        }

        @Test func refusalToSwitchIsUnsupported() throws {
            try withKey { key, _ in
                module.inject("C_SetAttributeValue", 0x10)
                #expect(code { try key.setEnabled(false) } == .unsupported)
                let facts = try key.describe()
                #expect(facts.enabled)
            }
        }
    }
}
