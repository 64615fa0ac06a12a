import TestSupport
import Testing
import VolumeFormat

/// Volumes of the pass-through build (bench/build-passthrough) and the program's own refuse each other.
@Suite struct FeatureTests {
    private func parse(_ features: FeatureFlags) throws(FormatError) -> VolumeDescription {
        var description = VolumeDescription(
            volume: UniqueID(high: 1, low: 2), created: 3, rootDirectory: UniqueID(high: 4, low: 5))
        description.features = features
        return try description.authenticatedBytes.withUnsafeBufferPointer { (bytes) throws(FormatError) in
            try VolumeDescription(parsing: UnsafeRawBufferPointer(bytes))
        }
    }

    @Test func aVolumeWithoutEncryptionIsRefused() {
        #expect(throws: FormatError(.unknownFeature, "volume description")) { try parse(.withoutEncryption) }
    }

    @Test func anEncryptedVolumeHasNoSuchFlag() throws {
        #expect(try parse(.ofEachVolume).features == [])
    }
}
