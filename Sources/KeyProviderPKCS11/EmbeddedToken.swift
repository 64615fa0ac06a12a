import CLinux
import CPKCS11
import Glibc
import KeyManagement
import Secrets

/// A SoftHSM2 token of our own, for volumes whose root is no HSM.
///
/// All tokens of one `$LETHEFS_HOME` share one directory, since SoftHSM2 takes one configuration a process:
///
///     DIRECTORY/softhsm2.conf      names DIRECTORY/tokens
///     DIRECTORY/tokens/UUID/       one directory a token, written by SoftHSM2
///     DIRECTORY/copies/UUID        of what it writes over at each login (see `EmbeddedCopies`)
///     DIRECTORY/pins/LABEL.pin     the user's PIN, LABEL percent-encoded
///     DIRECTORY/pins/LABEL.so-pin  the security officer's
///     DIRECTORY/lock               flock(2)ed while a token is made
///
/// A token comes into being by one rename(2); its PINs are durable before that.
package enum EmbeddedToken {
    /// Where SoftHSM2's library may be.
    static let modulePaths = [
        "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so",
        "/usr/lib/pkcs11/libsofthsm2.so",
    ]
    private static let timeoutSeconds = 30.0

    /// Makes a token and returns the root URI of a key in it that is yet to be created; `object` is the label, too.
    /// Throws `.denied` if there is a token of that label, `.moduleUnavailable` without SoftHSM2.
    package static func create(in directory: String, label: String) throws(RootError) -> String {
        try create(in: directory, label: label, modulePaths: modulePaths)
    }

    static func create(in directory: String, label: String, modulePaths: [String]) throws(RootError) -> String {
        guard (1...32).contains(label.utf8.count), label.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }),
            !label.hasSuffix(" ")
        else { throw RootError(.invalidURI, "a token's label has 1 to 32 bytes, no control characters") }
        guard let found = modulePaths.first(where: { access($0, R_OK) == 0 }) else {
            throw RootError(.moduleUnavailable, "SoftHSM2 is not installed: install the package softhsm2")
        }
        let path = try ModuleFile.check(found)
        let layout = try EmbeddedLayout(directory)
        try layout.prepare()
        let lock = try layout.lock(timeoutSeconds: timeoutSeconds)
        defer { close(lock) }
        try layout.writeConfiguration()

        var module = PKCS11URI.Module()
        module.path = path
        module.configuration = layout.configuration
        let registered = try ModuleRegistry.shared.module(at: path)
        let labels = try registered.performAlone(ModuleStart(module), timeoutSeconds: timeoutSeconds) {
            (cryptoki) throws(Failure) in
            try cryptoki.slotsWithToken().compactMap { slot in
                (try? cryptoki.tokenInfo(slot)).flatMap { $0.isInitialized ? $0.label : nil }
            }
        }
        guard !labels.contains(label) else { throw RootError(.denied, "there is a token \"\(label)\" already") }

        try layout.clearStaging()
        defer { try? layout.clearStaging() }
        try layout.makeStaging()
        let pins = EmbeddedPINs(userPIN: try .random(), securityOfficerPIN: try .random())
        var staging = module
        staging.configuration = layout.stagingConfiguration
        try registered.performAlone(ModuleStart(staging), timeoutSeconds: timeoutSeconds) {
            (cryptoki) throws(Failure) in
            try cryptoki.initializeToken(label, pins)
        }
        try layout.write(pins, label: label)
        try layout.publish()
        try EmbeddedCopies(layout: layout).mend()

        var uri = PKCS11URI()
        uri.module = module
        uri.token.token = label
        uri.object = label
        uri.pin = .file(layout.pinFile(label))
        return uri.textWithPINSource
    }

    /// Before SoftHSM2 is started with that configuration: what a login that was cut short has lost is put back.
    static func mend(_ configuration: String) throws(RootError) {
        guard let layout = layout(of: configuration), access(layout.pins, F_OK) == 0 else { return }
        try EmbeddedCopies(layout: layout).mend()
    }

    /// After a login to a token of that configuration: what is kept of it follows it. A copy that cannot be written is no reason to refuse the key.
    static func follow(_ configuration: String, serial: String) {
        guard let layout = layout(of: configuration), access(layout.pins, F_OK) == 0 else { return }
        try? EmbeddedCopies(layout: layout).follow(serial: serial)
    }

    private static func layout(of configuration: String) -> EmbeddedLayout? {
        configuration.hasSuffix("/softhsm2.conf") ? try? EmbeddedLayout(of: configuration) : nil
    }

    /// The PIN file of an embedded token, found by its configuration and its label: a stored URI carries no PIN.
    package static func pinSource(of uri: PKCS11URI) -> PINSource? {
        guard let configuration = uri.module.configuration, let label = uri.token.token,
            let layout = layout(of: configuration)
        else { return nil }
        let file = layout.pinFile(label)
        return access(file, F_OK) == 0 ? .file(file) : nil
    }
}

/// The two PINs of a new token.
final class EmbeddedPINs: Sendable {
    let userPIN: SecretBuffer
    let securityOfficerPIN: SecretBuffer

    init(userPIN: consuming SecretBuffer, securityOfficerPIN: consuming SecretBuffer) {
        self.userPIN = userPIN
        self.securityOfficerPIN = securityOfficerPIN
    }
}

extension SecretBuffer {
    /// A PIN of 32 characters, 5 bits of the DRBG's each, in letters and digits that cannot be confused.
    fileprivate static func random() throws(RootError) -> SecretBuffer {
        let alphabet = StaticString("abcdefghijkmnpqrstuvwxyz23456789")
        var pin = SecretBuffer(count: 32)
        do {
            try pin.fillRandom()
        } catch {
            throw RootError(.failed, "no random numbers")
        }
        pin.withMutableBytes { bytes in
            for index in bytes.indices { bytes[index] = alphabet.utf8Start[Int(bytes[index] & 31)] }
        }
        return pin
    }
}
