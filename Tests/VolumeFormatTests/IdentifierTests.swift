import TestSupport
import Testing
import VolumeFormat

@Suite struct IdentifierTests {
    @Test func canonicalForm() {
        #expect(Samples.volume.description == "00112233-4455-6677-8899-aabbccddeeff")
        #expect(UniqueID("00112233-4455-6677-8899-aabbccddeeff") == Samples.volume)
        #expect(UniqueID(high: 0, low: 1).description == "00000000-0000-0000-0000-000000000001")
        #expect(UniqueID(high: .max, low: .max).description == "ffffffff-ffff-ffff-ffff-ffffffffffff")
    }

    @Test func roundTrip() {
        var generator = SeededGenerator(seed: 5)
        for _ in 0..<1000 {
            let id = UniqueID(high: generator.next(), low: generator.next())
            #expect(UniqueID(id.description) == id)
        }
    }

    @Test(arguments: [
        "", "0", "00112233-4455-6677-8899-aabbccddeef", "00112233-4455-6677-8899-aabbccddeefg",
        "00112233-4455-6677-8899-aabbccddeeff0", "+0112233-4455-6677-8899-aabbccddeeff",
        "00112233-4455-6677-+899-aabbccddeeff", " 0112233-4455-6677-8899-aabbccddeeff",
    ])
    func refuses(text: String) { #expect(UniqueID(text) == nil) }

    @Test(arguments: [(1, 0), (1, 4064), (0xFFFFF, 4064), (0xFFFFF, 0xFFF), (2, 1)])
    func pageLeaders(version: UInt32, used: Int) {
        var bytes = [UInt8](repeating: 0, count: 32)
        let leader = PageLeader(version: KeyVersion(rawValue: version), usedLength: used)
        let read = bytes.withUnsafeMutableBytes { raw -> PageLeader? in
            guard let start = raw.baseAddress else { return nil }
            leader.store(at: start)
            return PageLeader(at: start)
        }
        #expect(read == leader && leader.version.rawValue == version && leader.usedLength == used)
        #expect(bytes[..<12].allSatisfy { $0 == 0 } && bytes[16...].allSatisfy { $0 == 0 })
        // A page that was written never looks like a hole.
        #expect(leader.versionAndLength != 0)
    }
}
