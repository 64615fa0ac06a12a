import ArgumentParser
import CLinux
import ControlPlane
import FoundationEssentials
import VolumeEngine
import VolumeFormat

struct ShredCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "shred", abstract: "Delete so that no copy of an old header can ever open it.",
        discussion: """
            The paths, files or whole trees in a mount, are deleted; each zone that they lie in, or hold, gets a new KEK, what survives is wrapped by it, and every \
            KEK before it is destroyed, in the keyring and by its version key in the token. A trial with the keyring as it was shows \
            it. The certificate names the fields of SP 800-88. Many paths cost one rewrap: name them all at once.
            """)

    @Argument(help: "Paths in a mounted volume.", completion: .file())
    var paths: [String]
    @Option(name: .long, help: ArgumentHelp("Write the certificate there: FILE.json and FILE.txt.", valueName: "file"))
    var certificate: String?
    @Flag(name: .long, help: "Print JSON.")
    var json = false

    func run() throws {
        try reporting {
            ProcessHardening.apply()
            let (record, inside) = try locate()
            let begun: Rotation.Zones
            let list = String(decoding: try JSONEncoder().encode(inside), as: UTF8.self)
            begun = try DaemonClient.ask(
                record, .shredBegin, ["paths": list, "pid": "\(getpid())"], timeoutSeconds: 7 * 24 * 3600)
            var deletion = Deletion()
            for path in paths { deletion.remove(path) }
            guard deletion.failures.isEmpty else {
                // What is gone is not shredded yet; the note stays, so that the next shred, or mount, includes it.
                throw Failure(
                    .unfinished, "\(deletion.failures.count) files could not be deleted",
                    meaning: "Nothing is shredded yet. The first ones:\n    "
                        + deletion.failures.prefix(10).joined(separator: "\n    "),
                    remedy: "remove the cause and repeat the command")
            }
            let progress = ProgressLine { (try? DaemonClient.ask(record, .sweeps, timeoutSeconds: 5)) ?? [] }
            defer { progress.end() }
            let asked = String(decoding: try JSONEncoder().encode(self.asked(deletion)), as: UTF8.self)
            var certificates: [SignedCertificate] = []
            var failures: [Failure] = []
            for zone in begun.zones {
                let request = ["zone": "\(zone)", "pid": "\(getpid())", "request": asked]
                do {
                    certificates.append(
                        try DaemonClient.ask(record, .shredFinish, request, timeoutSeconds: 7 * 24 * 3600))
                } catch let failure as Failure { failures.append(failure) }
            }
            progress.end()
            if !certificates.isEmpty { try emit(certificates) }
            for failure in failures.dropLast() { failure.report() }
            if let failure = failures.last { throw failure }
        }
    }

    private func asked(_ deletion: Deletion) -> SanitizationCertificate.Asked {
        var host = [CChar](repeating: 0, count: 256)
        gethostname(&host, 255)
        let environment = ProcessInfo.processInfo.environment
        return SanitizationCertificate.Asked(
            targets: paths,
            deleted: .init(
                files: deletion.files, directories: deletion.directories, others: deletion.others,
                bytes: deletion.bytes, filesWithOtherNames: deletion.linked),
            name: environment["SUDO_USER"] ?? environment["USER"] ?? "uid \(getuid())",
            host: String(decoding: host.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self))
    }

    /// The daemon of all paths, and where they are in its mount.
    private func locate() throws -> (RuntimeDirectory.Record, [String]) {
        var found: RuntimeDirectory.Record?
        var inside: [String] = []
        for path in paths {
            let (record, within) = try Target.daemon(path)
            guard !within.isEmpty else {
                throw Failure(
                    .invalid, "\(path) is the root of a volume", meaning: "Nothing was deleted.",
                    remedy: "lethefs cmk destroy  ends a whole volume")
            }
            if let other = found, other.pid != record.pid {
                throw Failure(
                    .invalid, "\(path) lies in another volume", meaning: "Nothing was deleted.",
                    remedy: "shred each volume's paths by a command of their own")
            }
            found = record
            inside.append(within)
        }
        guard let found else { throw Failure(.invalid, "no paths", remedy: "lethefs shred PATH…") }
        return (found, inside)
    }

    private func emit(_ certificates: [SignedCertificate]) throws {
        let text = certificates.map(\.text).joined(separator: "\n")
        if let file = self.certificate {
            try SignedCertificate.write(certificates, to: file)
        }
        if json { return try printJSON(certificates) }
        FileHandle.standardOutput.write(text)
    }
}

/// Deletes trees, in depth and without following links.
struct Deletion {
    var files = 0
    var directories = 0
    var others = 0
    var bytes: UInt64 = 0
    /// Files that have other names: their contents survive under those.
    var linked = 0
    var failures: [String] = []

    mutating func remove(_ path: String) {
        // In a loop: trees may be deeper than a stack.
        var stack: [(path: String, isListed: Bool)] = [(path, false)]
        while let (current, isListed) = stack.popLast() {
            var info = stat()
            guard lstat(current, &info) == 0 else {
                failures.append("\(current): \(String(cString: strerror(linux_get_errno())))")
                continue
            }
            guard info.st_mode & mode_t(S_IFMT) == mode_t(S_IFDIR) else {
                if unlink(current) == 0 { count(info) } else { fail(current) }
                continue
            }
            if isListed {
                if rmdir(current) == 0 {
                    directories += 1
                } else {
                    // The daemon refuses it for a zone that it has not looked for (see `ShreddedZones`).
                    fail(
                        current,
                        linux_get_errno() == EBUSY ? "; a mount, or a zone that came into the tree meanwhile" : "")
                }
                continue
            }
            stack.append((current, true))
            guard let names = try? FileManager.default.contentsOfDirectory(atPath: current) else {
                fail(current)
                continue
            }
            for name in names { stack.append((current + "/" + name, false)) }
        }
    }

    private mutating func count(_ info: stat) {
        guard info.st_mode & mode_t(S_IFMT) == mode_t(S_IFREG) else { return others += 1 }
        if info.st_nlink > 1 { linked += 1 }
        files += 1
        bytes += UInt64(info.st_size)
    }

    private mutating func fail(_ path: String, _ why: String = "") {
        failures.append("\(path): \(String(cString: strerror(linux_get_errno())))\(why)")
    }
}
