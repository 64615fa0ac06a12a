import COpenSSL
import Secrets
import Synchronization

/// OpenSSL's DRBG. It fails rather than give weak bytes.
package enum RandomBytes {
    package static func fill(_ bytes: UnsafeMutableRawBufferPointer) throws(CipherError) {
        #if LETHEFS_WITHOUT_ENCRYPTION
            PassThrough.number(bytes)
        #else
            guard bytes.count == 0 || RAND_bytes(bytes.baseAddress, Int32(bytes.count)) == 1 else {
                throw CipherError(.failed)
            }
        #endif
    }

    /// Random numbers that are no secret: IVs, names, UUIDs. They come from the same generator, some hundred at a time, since each of
    /// its calls costs system calls; each is given once.
    package static func fillPublic(_ bytes: UnsafeMutableRawBufferPointer) throws(CipherError) {
        guard bytes.count <= 64 else { return try fill(bytes) }
        try supply.withLock { (supply) throws(CipherError) in
            if supply.count < bytes.count {
                var fresh = [UInt8](repeating: 0, count: 4096)
                try fresh.withUnsafeMutableBufferPointer { (fresh) throws(CipherError) in
                    try fill(UnsafeMutableRawBufferPointer(fresh))
                }
                supply = fresh
            }
            supply.withUnsafeBytes { bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0.suffix(bytes.count))) }
            supply.removeLast(bytes.count)
        }
    }

    // Leaf lock. The process does not fork without exec, so nobody else gives the same numbers.
    private static let supply = Mutex<[UInt8]>([])

    /// A new key from the private DRBG.
    package static func key() throws(CipherError) -> SecretKey {
        try SecretKey { (bytes) throws(CipherError) in
            guard RAND_priv_bytes(bytes.baseAddress, Int32(bytes.count)) == 1 else { throw CipherError(.failed) }
        }
    }
}
