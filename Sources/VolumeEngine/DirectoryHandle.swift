import Ciphers
import Secrets
import Storage
import Synchronization
import VolumeFormat

/// A lower directory at hand: its descriptor (O_PATH) and the keys of its names. Cached by its inode, and let go under
/// pressure or when its zone is revoked; a thread that uses it keeps it alive.
final class DirectoryHandle: Sendable {
    let descriptor: Descriptor
    let header: DirectoryHeader
    let keys: DirectoryKeys
    /// From the lower inode: new entries inherit the group.
    let number: UInt64
    // Leaf locks, each held for one key wrap.
    private let wrapContext: Mutex<WrapContext>
    private let unwrapContext: Mutex<WrapContext>

    init(descriptor: Descriptor, number: UInt64, header: DirectoryHeader, keys: DirectoryKeys) throws(Errno) {
        self.descriptor = descriptor
        self.number = number
        self.header = header
        self.keys = keys
        do {
            wrapContext = Mutex(try WrapContext(.kwp, encrypt: true, under: keys.names))
            unwrapContext = Mutex(try WrapContext(.kwp, encrypt: false, under: keys.names))
        } catch { throw .io }
    }

    var zone: ZoneID { header.zone }

    /// AES-256-KWP of a name into `output`, which has 16 bytes more room than the result.
    func wrap(_ name: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        do { return try wrapContext.withLock { (context) throws(CipherError) in try context.run(name, output) } } catch
        {
            throw .io
        }
    }

    /// The name in a KWP ciphertext; `nil` when it was not made under this directory's key.
    func unwrap(_ wrapped: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Int? {
        guard wrapped.count >= 16, wrapped.count % 8 == 0 else { return nil }
        return try? unwrapContext.withLock { (context) throws(CipherError) in try context.run(wrapped, output) }
    }
}

/// The stored form of a name, for the time of a call.
struct LowerName {
    /// NUL-terminated.
    let text: UnsafePointer<CChar>
    /// Bytes without the NUL.
    let count: Int
    /// Of a long name: the sidecar that must be there before the entry, and go after it.
    let sidecar: Sidecar?

    struct Sidecar {
        let name: String
        let target: [UInt8]
    }

    /// A copy that lasts, with its NUL.
    var stored: [CChar] { Array(UnsafeBufferPointer(start: text, count: count + 1)) }
}

extension DirectoryHandle {
    private static let textOffset = 320
    private static let scratchSize = 640

    /// Runs `body` with the stored form of `name` (1 to 255 bytes; ENAMETOOLONG beyond).
    func withLowerName<R>(
        _ name: UnsafeRawBufferPointer, _ body: (LowerName) throws(Errno) -> R
    ) throws(Errno) -> R {
        guard name.count <= NameEncoding.maximum else { throw .nameTooLong }
        guard name.count > 0 else { throw .noEntry }
        guard !NameEncoding.isLong(name.count) else { return try withLongName(name, body) }
        var result: Result<R, Errno> = .failure(.io)
        withUnsafeTemporaryAllocation(byteCount: Self.scratchSize, alignment: 16) { scratch in
            do throws(Errno) {
                let wrapped = UnsafeMutableRawBufferPointer(rebasing: scratch[..<Self.textOffset])
                let count = try wrap(name, into: wrapped)
                let textCount = Base64URL.encodedCount(count)
                guard let text = scratch.baseAddress.map({ $0 + Self.textOffset }) else { return }
                Base64URL.encode(UnsafeRawBufferPointer(rebasing: wrapped[..<count]), into: text)
                text.storeBytes(of: 0, toByteOffset: textCount, as: UInt8.self)
                let bound = UnsafePointer(text.assumingMemoryBound(to: CChar.self))
                result = .success(try body(LowerName(text: bound, count: textCount, sidecar: nil)))
            } catch { result = .failure(error) }
        }
        return try result.get()
    }

    private func withLongName<R>(
        _ name: UnsafeRawBufferPointer, _ body: (LowerName) throws(Errno) -> R
    ) throws(Errno) -> R {
        let code: [UInt8]
        do { code = try HMACSHA256.code(key: keys.longNames, message: name) } catch { throw .io }
        let digest = String(decoding: Base64URL.encode(code), as: UTF8.self)
        var wrapped = [UInt8](repeating: 0, count: NameEncoding.wrappedCount(name.count) + 16)
        let count = try wrapped.withUnsafeMutableBufferPointer { (buffer) throws(Errno) in
            try wrap(name, into: UnsafeMutableRawBufferPointer(buffer))
        }
        let sidecar = LowerName.Sidecar(
            name: ReservedName.longName + digest, target: Base64URL.encode(Array(wrapped[..<count])))
        let entry = Array((ReservedName.longEntry + digest).utf8CString)
        return try entry.withUnsafeBufferPointer { (buffer) throws(Errno) in
            guard let text = buffer.baseAddress else { throw .io }
            return try body(LowerName(text: text, count: entry.count - 1, sidecar: sidecar))
        }
    }

    /// Makes the sidecar of a long name. It is deterministic: one that exists already is the same.
    func makeSidecar(_ name: LowerName) throws(Errno) {
        guard let sidecar = name.sidecar else { return }
        let target = sidecar.target.map(CChar.init(bitPattern:)) + [0]
        do { try Lower.symlink(target: target, descriptor, sidecar.name) } catch {
            guard error == .exists else { throw error }
        }
    }

    /// Removes the sidecar of a long name whose entry is gone. One that stays behind hides nothing and harms nothing.
    func removeSidecar(_ name: LowerName) {
        guard let sidecar = name.sidecar else { return }
        try? Lower.unlink(descriptor, sidecar.name)
    }

    /// What a stored name means.
    enum Decoded {
        /// Plaintext bytes, in `output`.
        case name(Int)
        /// Not an entry: a header, a sidecar, a temporary, the volume's directory.
        case reserved
        /// Not a name under this directory's key.
        case damaged
    }

    /// Reads a stored name (without NUL); `output` has room for 320 bytes.
    func decode(_ stored: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Decoded {
        if stored.contains(UInt8(ascii: ".")) { return decodeReserved(stored, into: output) }
        if stored.elementsEqual(ReservedName.lostAndFound.utf8) { return .reserved }
        return decodeText(stored, into: output)
    }

    private func decodeText(_ text: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Decoded {
        guard text.count <= 400 else { return .damaged }
        return withUnsafeTemporaryAllocation(byteCount: 320, alignment: 16) { wrapped in
            let count = Base64URL.decodedCount(text.count)
            guard let start = wrapped.baseAddress, Base64URL.decode(text, into: start),
                let length = unwrap(UnsafeRawBufferPointer(rebasing: wrapped[..<count]), into: output),
                NameEncoding.isValid(UnsafeRawBufferPointer(rebasing: output[..<length]))
            else { return .damaged }
            return .name(length)
        }
    }

    private func decodeReserved(_ stored: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Decoded
    {
        let name = String(decoding: stored, as: UTF8.self)
        guard name.hasPrefix(ReservedName.longEntry) else {
            let known = [ReservedName.longName, ReservedName.temporary].contains { name.hasPrefix($0) }
            return known || name == ReservedName.directoryHeader || name == ReservedName.volumeDirectory || name == "."
                || name == ".." ? .reserved : .damaged
        }
        let digest = name.dropFirst(ReservedName.longEntry.count)
        guard let target = try? Lower.readLink(descriptor, ReservedName.longName + digest) else { return .damaged }
        let decoded = target.withUnsafeBytes { decodeText($0, into: output) }
        guard case .name(let count) = decoded, NameEncoding.isLong(count),
            let code = try? HMACSHA256.code(
                key: keys.longNames, message: UnsafeRawBufferPointer(rebasing: output[..<count])),
            Base64URL.encode(code) == Array(digest.utf8)
        else { return .damaged }
        return decoded
    }
}
