import KeyManagement
import KeyProviderPKCS11
import Testing

struct PKCS11URITests {
    /// RFC 7512 §3's examples, without line breaks, and what they are in canonical form. Its `pin-source=|…` and unknown
    /// vendor attributes are refused here.
    @Test(arguments: [
        ("pkcs11:", "pkcs11:"),
        ("pkcs11:object=my-pubkey;type=public", "pkcs11:object=my-pubkey;type=public"),
        ("pkcs11:object=my-key;type=private?pin-source=file:/etc/token", "pkcs11:object=my-key;type=private"),
        (
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;"
                + "object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin",
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;serial=;"
                + "object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91"
        ),
        (
            "pkcs11:object=my-sign-key;type=private?module-name=mypkcs11",
            "pkcs11:object=my-sign-key;type=private?module-name=mypkcs11"
        ),
        (
            "pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1",
            "pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1"
        ),
        (
            "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-value=the-pin",
            "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc."
        ),
        (
            "pkcs11:slot-description=Sun%20Metaslot", "pkcs11:slot-description=Sun%20Metaslot"
        ),
        (
            "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;"
                + "library-version=1.23",
            "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;"
                + "library-version=1.23"
        ),
        ("pkcs11:library-version=3", "pkcs11:library-version=3.0"),
        (
            "pkcs11:token=My%20token%25%20created%20by%20Joe;library-version=3;id=%01%02%03%Ba%dd%Ca%fe%04%05%06",
            "pkcs11:token=My%20token%25%20created%20by%20Joe;library-version=3.0;id=%01%02%03%BA%DD%CA%FE%04%05%06"
        ),
        (
            "pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert",
            "pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert"
        ),
        (
            "pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=my-certificate;type=cert",
            "pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=my-certificate;type=cert"
        ),
        ("PKCS11:slot-id=7", "pkcs11:slot-id=7"),
        ("pkcs11:id=%00%ff", "pkcs11:id=%00%FF"),
        ("pkcs11:object=%6Dy", "pkcs11:object=my"),
        (
            "pkcs11:token=t?x-init-string=configdir='sql:/d'%20flags=&x-function-list=FC_GetFunctionList&x-conf=/c",
            "pkcs11:token=t?x-conf=/c&x-function-list=FC_GetFunctionList&x-init-string=configdir='sql:/d'%20flags="
        ),
    ])
    func isCanonical(text: String, canonical: String) throws {
        let uri = try PKCS11URI(text)
        #expect(uri.identity == canonical)
        #expect(try PKCS11URI(uri.identity).identity == canonical)
    }

    @Test(arguments: [
        "", "pkcs11", "pkcs12:token=a", "pkcs11:token", "pkcs11:=a", "pkcs11:token=a;", "pkcs11:;token=a",
        "pkcs11:token=a;token=a", "pkcs11:token=a;token=b", "pkcs11:colour=red", "pkcs11:x-vendor=a",
        "pkcs11:Token=a", "pkcs11:token=a b", "pkcs11:token=a/b", "pkcs11:token=%", "pkcs11:token=%2",
        "pkcs11:token=%2g",
        "pkcs11:token=a%00b", "pkcs11:token=%FF", "pkcs11:token=a#b", "pkcs11:token=a\u{e9}", "pkcs11:type=key",
        "pkcs11:slot-id=", "pkcs11:slot-id=-1", "pkcs11:slot-id=+1", "pkcs11:slot-id=0x1",
        "pkcs11:library-version=1.2.3",
        "pkcs11:library-version=256", "pkcs11:library-version=", "pkcs11:?pin-value", "pkcs11:?colour=red",
        "pkcs11:?pin-value=1&pin-source=/a", "pkcs11:?pin-source=/a&pin-value=1", "pkcs11:?pin-value=1&pin-value=1",
        "pkcs11:?pin-source=a", "pkcs11:?pin-source=%7Ccat%20/a", "pkcs11:?pin-source=|cat", "pkcs11:?pin-source=",
        "pkcs11:?pin-source=file://host/a", "pkcs11:?pin-source=file:a", "pkcs11:?module-path=a.so",
        "pkcs11:?module-name=a/b", "pkcs11:?module-name=", "pkcs11:?module-name=..", "pkcs11:?x-conf=a",
        "pkcs11:?x-function-list=system", "pkcs11:?x-function-list=", "pkcs11:?x-function-list=a;GetFunctionList",
        "pkcs11:?x-env=LD_PRELOAD", "pkcs11:token=" + String(repeating: "a", count: 256),
        "pkcs11:object=" + String(repeating: "a", count: 5000),
        "pkcs11:id=" + String(repeating: "%00", count: 256),
    ])
    func isRefused(text: String) {
        #expect(throws: RootError(.invalidURI, "")) { try PKCS11URI(text) }
    }

    @Test(arguments: [
        "/etc/pin", "file:/etc/pin", "file:///etc/pin", "file://localhost/etc/pin", "file:/etc/%2570in", "/etc/%70in",
    ])
    func namesPINFile(source: String) throws {
        guard case .file("/etc/pin")? = try PKCS11URI("pkcs11:?pin-source=\(source)").pin else {
            Issue.record("not /etc/pin")
            return
        }
    }

    @Test func keepsPINValueOutOfText() throws {
        let uri = try PKCS11URI("pkcs11:token=a?pin-value=%31234%26")
        #expect(!uri.identity.contains("34") && !uri.textWithPINSource.contains("34"))
        guard case .value(let secret)? = uri.pin else {
            Issue.record("no PIN")
            return
        }
        #expect(secret.buffer.withBytes { Array($0) } == Array("1234&".utf8))
        #expect(
            try PKCS11URI("pkcs11:?pin-source=/a&module-path=/b").textWithPINSource
                == "pkcs11:?module-path=/b&pin-source=/a")
    }

    /// What is parsed is written back the same, whatever the bytes were.
    @Test func survivesRandomBytes() {
        var generator = SystemRandomNumberGenerator()
        let pieces = [
            "pkcs11:", "token=", "id=", "object=", ";", "?", "&", "%41", "%", "a", "pin-source=/", "x-conf=/", "=",
            "\u{0}", "é",
        ]
        for _ in 0..<20_000 {
            let text =
                "pkcs11:"
                + (0..<Int.random(in: 0..<8, using: &generator)).compactMap { _ in
                    pieces.randomElement(using: &generator)
                }.joined()
            guard let uri = try? PKCS11URI(text) else { continue }
            #expect((try? PKCS11URI(uri.textWithPINSource))?.textWithPINSource == uri.textWithPINSource, "\(text)")
        }
    }
}
