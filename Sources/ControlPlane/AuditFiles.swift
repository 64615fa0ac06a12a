import CLinux
import KeyManagement
import Storage
import VolumeEngine
import VolumeFormat

/// Why the audit log cannot be opened.
package enum AuditError: Error, Sendable, Equatable {
    case lower(Errno, String)
    /// The volume has no log yet.
    case missing
    /// Another process appends to it.
    case busy
    case cipher
}

/// The files below `.lethefs/audit`.
package struct AuditFiles: Sendable {
    static let log = "log"
    static let keys = "key"
    static let head = "head"
    private static let name = "audit"

    let directory: Descriptor

    /// Opens the directory; with `creating`, makes it where there is none.
    package init(volumeDirectory: Descriptor, creating: Bool) throws(AuditError) {
        do throws(Errno) {
            if creating {
                do throws(Errno) {
                    try Lower.makeDirectory(volumeDirectory, Self.name, mode: 0o700)
                    let reopened = try Lower.open(volumeDirectory, ".", flags: O_RDONLY | O_DIRECTORY, for: .daemon)
                    try Lower.sync(reopened)
                } catch {
                    guard error == .exists else { throw error }
                }
            }
            directory = try Lower.open(volumeDirectory, Self.name, flags: O_RDONLY | O_DIRECTORY, for: .daemon)
        } catch {
            throw error == .noEntry ? .missing : .lower(error, "opening .lethefs/audit")
        }
    }

    /// The log, for reading.
    package func openLog() throws(AuditError) -> Descriptor {
        do { return try Lower.open(directory, Self.log, flags: O_RDONLY | O_NONBLOCK | O_NOCTTY, for: .daemon) } catch {
            throw error == .noEntry ? .missing : .lower(error, "opening .lethefs/audit/log")
        }
    }

    /// The log, for one process that appends.
    func openForAppending() throws(AuditError) -> Descriptor {
        let file: Descriptor
        do throws(Errno) {
            file = try Lower.open(
                directory, Self.log, flags: O_RDWR | O_CREAT | O_NONBLOCK | O_NOCTTY, mode: 0o600, for: .daemon)
            guard try Lower.stat(file).st_mode & mode_t(S_IFMT) == mode_t(S_IFREG) else { throw .invalid }
            let reopened = try Lower.open(directory, ".", flags: O_RDONLY | O_DIRECTORY, for: .daemon)
            try Lower.sync(reopened)
        } catch { throw .lower(error, "opening .lethefs/audit/log") }
        // A process that was killed just now may still be on its way out.
        for attempt in 0..<20 {
            if flock(file.raw, LOCK_EX | LOCK_NB) == 0 { return file }
            if attempt < 19 { usleep(50_000) }
        }
        throw .busy
    }

    /// What a sealed file of the audit log is worth.
    package enum Sealed<Value: Sendable>: Sendable {
        case authentic(Value)
        /// There, and not made by somebody with the root zone's KEK.
        case refused
        case missing

        package var value: Value? { if case .authentic(let value) = self { value } else { nil } }
    }

    /// The key list as the KEK authenticates it.
    package func keyList(_ keys: ZoneKeys) -> Sealed<AuditKeyList> {
        unseal(Self.keys, AuditKeyList.maximumEncodedSize, "audit key list", keys) { (bytes) throws(FormatError) in
            let list = try AuditKeyList(parsing: bytes)
            return list.volume == keys.volume ? list : nil
        }
    }

    /// The sealed head as the KEK authenticates it.
    package func sealedHead(_ keys: ZoneKeys) -> Sealed<AuditHead> {
        unseal(Self.head, AuditHead.maximumEncodedSize, "audit head", keys) { (bytes) throws(FormatError) in
            let head = try AuditHead(parsing: bytes)
            return head.volume == keys.volume ? head : nil
        }
    }

    /// The KEK version that the key list names.
    var keyListVersion: KeyVersion? {
        let limit = AuditKeyList.maximumEncodedSize + SealedFile.trailer
        guard let bytes = try? AtomicFile.read(directory, Self.keys, limit: limit) else { return nil }
        return (try? SealedFile(parsing: bytes, of: "audit key list"))?.kekVersion
    }

    func write(_ list: AuditKeyList, _ keys: ZoneKeys) -> Bool { write(Self.keys, list.authenticatedBytes, keys) }
    package func write(_ head: AuditHead, _ keys: ZoneKeys) -> Bool { write(Self.head, head.authenticatedBytes, keys) }

    private func write(_ name: String, _ body: [UInt8], _ keys: ZoneKeys) -> Bool {
        do {
            try AtomicFile.replace(directory, name, with: try VolumeFiles.seal(body, keys))
            return true
        } catch { return false }
    }

    private func unseal<Value>(
        _ name: String, _ limit: Int, _ object: StaticString, _ keys: ZoneKeys,
        _ parse: (UnsafeRawBufferPointer) throws(FormatError) -> Value?
    ) -> Sealed<Value> {
        let bytes: [UInt8]
        do { bytes = try AtomicFile.read(directory, name, limit: limit + SealedFile.trailer) } catch {
            return error == .noEntry ? .missing : .refused
        }
        do {
            let sealed = try SealedFile(parsing: bytes, of: object)
            try VolumeFiles.authenticate(sealed, keys, name)
            let value = try sealed.body.withUnsafeBufferPointer { (body) throws(FormatError) in
                try parse(UnsafeRawBufferPointer(body))
            }
            return value.map { .authentic($0) } ?? .refused
        } catch { return .refused }
    }
}
