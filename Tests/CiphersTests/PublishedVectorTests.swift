import Ciphers
import Foundation
import Secrets
import TestSupport
import Testing

/// The vectors of the standards, in `Vectors/`.
@Suite struct PublishedVectors {
    private func records(_ name: String) throws -> [VectorFile.Record] {
        let url = try #require(Bundle.module.url(forResource: name, withExtension: "txt", subdirectory: "Vectors"))
        let records = try VectorFile(url).records
        try #require(!records.isEmpty)
        return records
    }

    @Test func gcm() throws {
        let pool = try AEADPool(slots: 2)
        for record in try records("gcm") { #expect(try VectorCheck.gcm(record, pool) == true) }
    }

    @Test(arguments: [("kw", KeyWrap.Variant.kw), ("kwp", .kwp)])
    func keyWrap(name: String, variant: KeyWrap.Variant) throws {
        for record in try records(name) { #expect(try VectorCheck.keyWrap(record, variant) == true) }
    }

    @Test func hkdf() throws {
        for record in try records("hkdf") { #expect(try VectorCheck.hkdf(record) == true) }
    }

    @Test func hmac() throws {
        for record in try records("hmac") { #expect(try VectorCheck.hmac(record) == true) }
    }
}
