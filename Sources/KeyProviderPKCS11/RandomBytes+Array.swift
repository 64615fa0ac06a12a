import Ciphers
import Secrets

extension RandomBytes {
    /// `count` bytes that are not secret: IVs and ids.
    static func array(_ count: Int) throws(CipherError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let result = bytes.withUnsafeMutableBytes { buffer in
            Result { () throws(CipherError) in try fill(buffer) }
        }
        try result.get()
        return bytes
    }
}

extension SecretBuffer {
    mutating func fillRandom() throws(CipherError) {
        try withMutableBytes { (bytes) throws(CipherError) in try RandomBytes.fill(bytes) }
    }
}
