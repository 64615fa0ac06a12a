#if LETHEFS_WITHOUT_ENCRYPTION
    import Glibc
    import Synchronization

    /// What the pass-through build does in the place of cryptography: the same lengths, no secrecy. Only bench/build-passthrough
    /// compiles it; volumes carry a feature flag that keeps the two apart (`FeatureFlags.withoutEncryption`).
    enum PassThrough {
        private static let counter = Atomic<UInt64>(UInt64(max(0, time(nil))) << 20)

        static func copy(_ input: UnsafeRawBufferPointer, to output: UnsafeMutableRawPointer) {
            guard let start = input.baseAddress, input.count > 0 else { return }
            memcpy(output, start, input.count)
        }

        static func zero(_ output: UnsafeMutableRawPointer, _ count: Int) { memset(output, 0, count) }

        /// Eight bytes with the length, then the input, padded to eight.
        static func wrap(_ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer) -> Int {
            let padded = (input.count + 7) / 8 * 8
            guard let start = output.baseAddress else { return 0 }
            memset(start, 0, 8 + padded)
            output.storeBytes(of: UInt64(input.count), as: UInt64.self)
            copy(input, to: start + 8)
            return 8 + padded
        }

        /// `nil` for what `wrap` did not make.
        static func unwrap(_ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer) -> Int? {
            guard input.count >= 16, input.count % 8 == 0, let start = output.baseAddress else { return nil }
            let count = input.loadUnaligned(as: UInt64.self)
            guard count > 0, count <= UInt64(input.count - 8), UInt64(input.count - 8) - count < 8 else { return nil }
            copy(UnsafeRawBufferPointer(rebasing: input[8..<(8 + Int(count))]), to: start)
            return Int(count)
        }

        /// A checksum of 32 bytes: long names need different digests.
        static func digest(_ message: UnsafeRawBufferPointer) -> [UInt8] {
            var words: (UInt64, UInt64) = (0xCBF2_9CE4_8422_2325, 0x9E37_79B9_7F4A_7C15)
            for byte in message {
                words.0 = (words.0 ^ UInt64(byte)) &* 0x100_0000_01B3
                words.1 = (words.1 &+ UInt64(byte)) &* 0xBF58_476D_1CE4_E5B9
            }
            return withUnsafeBytes(of: (words.0, words.1, words.0 ^ words.1, words.0 &+ words.1)) { [UInt8]($0) }
        }

        /// Different each time, and nothing more.
        static func number(_ bytes: UnsafeMutableRawBufferPointer) {
            var state = counter.add(1, ordering: .relaxed).newValue
            for index in bytes.indices {
                if index % 8 == 0 { state = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9 &+ 0x94D0_49BB_1331_11EB }
                bytes[index] = UInt8(truncatingIfNeeded: state >> UInt64(index % 8 * 8))
            }
        }

        /// Repeats the parent.
        static func derive(_ parent: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer) {
            for index in output.indices { output[index] = parent[index % parent.count] }
        }
    }
#endif
