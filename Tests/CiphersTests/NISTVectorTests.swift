import Ciphers
import Foundation
import TestSupport
import Testing

/// NIST's full response files, as the PyPI package `cryptography_vectors` carries them. `Tests/vectors` fetches it.
@Suite struct NISTVectors {
    /// The unpacked package, from the environment.
    private func directory() throws -> URL {
        let path = try #require(
            ProcessInfo.processInfo.environment["LETHEFS_VECTORS"],
            "LETHEFS_VECTORS is not set: run Tests/vectors DIR, and set it to DIR/cryptography_vectors")
        return URL(fileURLWithPath: path)
    }

    /// Runs each record of a file that is of a parameter set of this program; fails when none is.
    private func run(_ file: String, _ check: (VectorFile.Record) throws -> Bool?) throws {
        let records = try VectorFile(try directory().appending(path: file)).records
        var ran = 0
        for (index, record) in records.enumerated() {
            guard let passed = try check(record) else { continue }
            ran += 1
            #expect(
                passed, "\(file): record \(index), COUNT \(record.fields["Count"] ?? record.fields["COUNT"] ?? "?")")
        }
        print("\(file): \(ran) of \(records.count) vectors")
        #expect(ran > 0)
    }

    @Test(arguments: ["gcmDecrypt256", "gcmEncryptExtIV256"])
    func gcm(name: String) throws {
        let pool = try AEADPool(slots: 2)
        try run("ciphers/AES/GCM/\(name).rsp") { try VectorCheck.gcm($0, pool) }
    }

    @Test(arguments: ["KW_AE_256", "KW_AD_256"])
    func keyWrap(name: String) throws {
        try run("keywrap/kwtestvectors/\(name).txt") { try VectorCheck.keyWrap($0, .kw) }
    }

    @Test(arguments: ["KWP_AE_256", "KWP_AD_256"])
    func keyWrapWithPadding(name: String) throws {
        try run("keywrap/kwtestvectors/\(name).txt") { try VectorCheck.keyWrap($0, .kwp) }
    }

    @Test func hkdf() throws {
        try run("KDF/hkdf-generated.txt") { $0.fields["Hash"] == "SHA-256" ? try VectorCheck.hkdf($0) : nil }
    }

    @Test func hmac() throws {
        try run("HMAC/rfc-4231-sha256.txt") { try VectorCheck.hmac($0) }
    }
}
