import Ciphers
import Glibc
import KeyManagement
import KeyProviderPKCS11
import Testing

extension Tokens {
    /// The signing key beside a CMK.
    @Suite(.serialized) struct Signing {
        let provider = PKCS11Provider()
        let message = Array("what was signed".utf8)

        @Test(arguments: TestTokens.names)
        func signsWhatAnotherProgramVerifies(name: String) throws {
            let uri = try TestTokens.shared.keyURI(name, uniqueLabel("cmk"))
            let key = try provider.create(uri.full)
            defer { try? key.destroy() }
            #expect(try key.signer(creating: false) == nil)
            let signer = try #require(try key.signer(creating: true), "\(name) makes no signing key")
            let clock = ContinuousClock()
            var signature = try signer.sign(message)
            let times = try (0..<5).map { _ in try clock.measure { signature = try signer.sign(message) } }
            let kind = try PublicKey(subjectPublicKeyInfo: signer.publicKey).kind
            print("\(name): \(kind), median signature \(times.sorted()[2])")

            #expect(signature.fits(message, publicKey: signer.publicKey))
            #expect(!signature.fits(message + [0], publicKey: signer.publicKey))
            try checkByCommand(signature, signer.publicKey)
            // Signatures of the last bit of r and s, of all lengths: DER's integers differ in theirs.
            for index in 0..<(TestTokens.slow.contains(name) ? 4 : 40) {
                let text = message + [UInt8(index)]
                #expect(try signer.sign(text).fits(text, publicKey: signer.publicKey))
            }

            // It is found again, not made again, and outlives the CMK.
            let again = try #require(try provider.open(uri.full).signer(creating: true))
            #expect(again.publicKey == signer.publicKey)
            try key.destroy()
            #expect(try signer.sign(message).fits(message, publicKey: again.publicKey))
        }

        @Test(arguments: ["softhsm", "nss", "opencryptoki"])
        func othersKeysAndChangesDoNotFit(name: String) throws {
            let keys = try (0..<2).map { _ in
                try provider.create(try TestTokens.shared.keyURI(name, uniqueLabel("cmk")).full)
            }
            defer { for key in keys { try? key.destroy() } }
            let signers = try keys.map { try #require(try $0.signer(creating: true)) }
            #expect(signers[0].publicKey != signers[1].publicKey)
            var signature = try signers[0].sign(message)
            #expect(!signature.fits(message, publicKey: signers[1].publicKey))
            let other = try signers[1].sign(message)
            signature.bytes = other.bytes
            #expect(!signature.fits(message, publicKey: signers[0].publicKey))
            for index in other.bytes.indices {
                var changed = other
                changed.bytes[index] ^= 1 << (index % 8)
                #expect(!changed.fits(message, publicKey: signers[1].publicKey), "byte \(index)")
            }
            for count in [0, 1, other.bytes.count - 1] {
                var short = other
                short.bytes = Array(short.bytes.prefix(count))
                #expect(!short.fits(message, publicKey: signers[1].publicKey))
            }
            var long = other
            long.bytes.append(0)
            #expect(!long.fits(message, publicKey: signers[1].publicKey))
            #expect(!other.fits(message, publicKey: Array(signers[1].publicKey.dropLast())))
            #expect(!other.fits(message, publicKey: signers[1].publicKey + [0]))
        }

        /// openssl(1), which knows nothing of us.
        private func checkByCommand(_ signature: Signature, _ publicKey: [UInt8]) throws {
            var name = Array("/tmp/lethefs-signature.XXXXXX".utf8CString)
            let path = name.withUnsafeMutableBufferPointer { buffer in
                buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) }
            }
            let directory = try #require(path)
            defer { _ = try? run("/bin/rm", ["-rf", directory]) }
            for (file, bytes) in [("key", publicKey), ("signature", signature.bytes), ("message", message)] {
                let output = try #require(fopen("\(directory)/\(file)", "w"))
                fwrite(bytes, 1, bytes.count, output)
                fclose(output)
            }
            let result = try run(
                "/usr/bin/openssl",
                [
                    "dgst", "-sha256", "-keyform", "DER", "-verify", "\(directory)/key", "-signature",
                    "\(directory)/signature", "\(directory)/message",
                ])
            #expect(result.status == 0, "\(result.output)")
        }
    }
}
