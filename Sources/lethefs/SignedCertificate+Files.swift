import CLinux
import FoundationEssentials
import VolumeFormat

extension SignedCertificate {
    /// FILE.json and FILE.txt.
    static func write(_ certificates: [SignedCertificate], to file: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        encoder.dateEncodingStrategy = .iso8601
        do {
            try encoder.encode(certificates).write(to: URL(filePath: file + ".json"), options: .atomic)
            let text = certificates.map(\.text).joined(separator: "\n")
            try Data(text.utf8).write(to: URL(filePath: file + ".txt"), options: .atomic)
        } catch {
            throw Failure(.storage, "writing the certificate \(file): \(error)", meaning: "The shredding is done.")
        }
    }

    /// One, or an array of them, as `write` and `shred --json` give them.
    static func read(_ path: String) throws -> [SignedCertificate] {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw Failure(.invalid, "\(path): \(String(cString: strerror(linux_get_errno())))")
        }
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        if let several = try? decoder.decode([SignedCertificate].self, from: data), !several.isEmpty { return several }
        do { return [try decoder.decode(SignedCertificate.self, from: data)] } catch {
            throw Failure(.invalid, "\(path) is no certificate of lethefs shred", remedy: "name the FILE.json of it")
        }
    }
}

extension Host {
    /// Keeps a certificate that nobody waits for; returns its path without the ending.
    func writeCertificate(_ certificate: SignedCertificate, _ volume: UniqueID) throws -> String {
        try makeDirectory("certificates")
        let key = certificate.certificate.keys.first
        let path = "\(home)/certificates/\(volume)-zone\(key?.zone ?? 0)-kek\(key?.activeKEK ?? 0)"
        try SignedCertificate.write([certificate], to: path)
        return path
    }
}
