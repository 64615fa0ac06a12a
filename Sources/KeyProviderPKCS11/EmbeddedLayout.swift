import CLinux
import Glibc
import KeyManagement
import Secrets

/// The files of the embedded tokens. Everything is 0700 or 0600, and durable before it is needed.
struct EmbeddedLayout {
    let directory: String

    var configuration: String { "\(directory)/softhsm2.conf" }
    var stagingConfiguration: String { "\(staging)/softhsm2.conf" }
    var tokens: String { "\(directory)/tokens" }
    var copies: String { "\(directory)/copies" }
    var pins: String { "\(directory)/pins" }
    private var staging: String { "\(directory)/staging" }

    init(_ path: String) throws(RootError) {
        guard path.hasPrefix("/"), !path.utf8.contains(UInt8(ascii: "\n")) else {
            throw RootError(.invalidURI, "the token directory is not an absolute path")
        }
        directory = path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path
    }

    init(of configuration: String) throws(RootError) {
        try self.init(String(configuration.dropLast("/softhsm2.conf".count)))
    }

    func pinFile(_ label: String) -> String { "\(pins)/\(fileName(label)).pin" }

    /// No `/`, and no leading dot.
    private func fileName(_ label: String) -> String {
        let name = PercentCoding.encode(label.utf8, alphabet: .path)
        return name.hasPrefix(".") ? "%2E" + name.dropFirst() : name
    }

    func prepare() throws(RootError) {
        var path = ""
        for part in directory.split(separator: "/") {
            path += "/\(part)"
            try EmbeddedFile.makeDirectory(path)
        }
        try EmbeddedFile.requirePrivate(directory)
        try EmbeddedFile.makeDirectory(tokens)
        try EmbeddedFile.makeDirectory(pins)
        try EmbeddedFile.sync(directory)
    }

    /// Waits for other processes that make a token; the lock ends with the descriptor.
    func lock(timeoutSeconds: Double) throws(RootError) -> Int32 {
        let path = "\(directory)/lock"
        let file = linux_openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard file >= 0 else { throw EmbeddedFile.failure("open", path) }
        for _ in 0..<Int(timeoutSeconds * 20) {
            if flock(file, LOCK_EX | LOCK_NB) == 0 { return file }
            usleep(50_000)
        }
        close(file)
        throw RootError(.timedOut, "\(path) is held by another process")
    }

    func writeConfiguration() throws(RootError) {
        if access(configuration, F_OK) == 0 { return }
        try EmbeddedFile.write(configurationText(tokens), to: configuration)
    }

    func makeStaging() throws(RootError) {
        try EmbeddedFile.makeDirectory(staging)
        try EmbeddedFile.makeDirectory("\(staging)/tokens")
        try EmbeddedFile.write(configurationText("\(staging)/tokens"), to: stagingConfiguration)
    }

    func clearStaging() throws(RootError) { try EmbeddedFile.removeTree(staging) }

    func write(_ pins: EmbeddedPINs, label: String) throws(RootError) {
        let name = "\(self.pins)/\(fileName(label))"
        try pins.userPIN.withBytes { (bytes) throws(RootError) in try EmbeddedFile.write(bytes, to: "\(name).pin") }
        try pins.securityOfficerPIN.withBytes { (bytes) throws(RootError) in
            try EmbeddedFile.write(bytes, to: "\(name).so-pin")
        }
    }

    /// Moves the one staged token to its place: from here on it exists.
    func publish() throws(RootError) {
        let names = try EmbeddedFile.entries("\(staging)/tokens")
        guard names.count == 1, let name = names.first else {
            throw RootError(.failed, "SoftHSM2 made \(names.count) tokens where one was asked for")
        }
        let made = "\(staging)/tokens/\(name)"
        guard chmod(made, 0o700) == 0 else { throw EmbeddedFile.failure("chmod", made) }
        for file in try EmbeddedFile.entries(made) {
            let path = "\(made)/\(file)"
            guard chmod(path, 0o600) == 0 else { throw EmbeddedFile.failure("chmod", path) }
            try EmbeddedFile.sync(path)
        }
        try EmbeddedFile.sync(made)
        guard rename(made, "\(tokens)/\(name)") == 0 else { throw EmbeddedFile.failure("rename", made) }
        try EmbeddedFile.sync(tokens)
    }

    private func configurationText(_ tokens: String) -> String {
        """
        directories.tokendir = \(tokens)
        objectstore.backend = file
        log.level = ERROR
        slots.removable = false

        """
    }
}
