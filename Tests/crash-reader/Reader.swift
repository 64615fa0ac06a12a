import CLinux
import FoundationEssentials
import KeyManagement
import KeyProviderPKCS11
import Secrets
import Storage
import Synchronization
import VolumeEngine
import VolumeFormat

/// Reads a lower tree with the engine of the mount, without FUSE, and says on standard output all that a program would see.
///
///     crash-reader ROOT-URI
///
/// Each line of standard input is `read LOWER` (as a mount with `ro`) or `settle LOWER` (as a mount that writes: every file is
/// opened for writing and closed, the volume unmounted, mounted again and read). The answer: a JSON line for each entry,
/// followed by as many bytes of contents as it says, and a line with `end`.
@main
enum Reader {
    static func main() throws {
        guard CommandLine.arguments.count == 2 else { throw Problem.usage }
        let roots = CachedRoots(uri: CommandLine.arguments[1])
        let unlocking = KeyringUnlocking { (uri) throws(RootError) in try roots.resolve() }
        while let line = readLine() {
            let parts = line.split(separator: " ", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { throw Problem.usage }
            var output = Output()
            do {
                if parts[0] == "settle" { try settle(parts[1], unlocking, &output) }
                try read(parts[1], unlocking, &output)
            } catch { output.end("\(error)") }
            output.flush()
        }
    }

    enum Problem: Error { case usage }

    private static func mount(
        _ lower: String, readOnly: Bool, _ unlocking: KeyringUnlocking, _ log: DamageLog
    ) throws -> VolumeMount {
        var options = Volume.Options()
        options.readOnly = readOnly
        return try VolumeMount(lower: lower, options: options, unlocking: unlocking) { log.note($0) }
    }

    private static func read(_ lower: String, _ unlocking: KeyringUnlocking, _ output: inout Output) throws {
        let log = DamageLog()
        let mount = try mount(lower, readOnly: true, unlocking, log)
        Dump(mount.volume, log).run(&output)
        output.end(nil)
    }

    private static func settle(_ lower: String, _ unlocking: KeyringUnlocking, _ output: inout Output) throws {
        let mount = try mount(lower, readOnly: false, unlocking, DamageLog())
        let volume = mount.volume
        var pending = [volume.rootInode]
        while let directory = pending.popLast() {
            defer { if directory !== volume.rootInode { volume.forget(directory, count: 1) } }
            guard let stream = try? volume.openDirectory(directory) else { continue }
            var found: [Inode] = []
            try? stream.read { (item) throws(Errno) in
                if let entry = try? volume.entry(item, in: directory) { found.append(entry.inode) }
                return true
            }
            for inode in found {
                if inode.kind == .directory {
                    pending.append(inode)
                    continue
                }
                if inode.kind == .regular, let content = try? volume.openContent(inode, forWriting: true) {
                    volume.closeContent(content)
                }
                volume.forget(inode, count: 1)
            }
        }
        try mount.close()
    }
}

/// What the engine said about damage while one object was read.
final class DamageLog: Sendable {
    private let seen = Mutex<[String]>([])
    func note(_ damage: Damage) {
        seen.withLock { $0.append("\(damage.object.rawValue) \(damage.page.map(String.init) ?? ""): \(damage.reason)") }
    }
    func take() -> [String] {
        seen.withLock { seen in
            defer { seen = [] }
            return seen
        }
    }
}

/// The CMK of the volume; what it has unwrapped once it need not be asked again, since thousands of states share a keyring.
final class CachedRoots: Sendable {
    private let uri: String
    private let opened = Mutex<CachedCMK?>(nil)

    init(uri: String) { self.uri = uri }

    func resolve() throws(RootError) -> any CustomerMasterKey {
        if let cmk = opened.withLock({ $0 }) { return cmk }
        let cmk = CachedCMK(try PKCS11Provider().open(uri))
        opened.withLock { $0 = cmk }
        return cmk
    }
}

final class CachedCMK: CustomerMasterKey {
    private let cmk: any CustomerMasterKey
    private let known = Mutex<[[UInt8]: [UInt8]]>([:])

    init(_ cmk: any CustomerMasterKey) { self.cmk = cmk }

    var uri: String { cmk.uri }
    func describe() throws(RootError) -> CMKDescription { try cmk.describe() }
    func wrap(_ kek: borrowing SecretKey, context: KEKContext) throws(RootError) -> RootWrap {
        try cmk.wrap(kek, context: context)
    }
    func unwrap(_ wrap: RootWrap, context: KEKContext) throws(RootError) -> SecretKey {
        let name = context.encoded + wrap.blob
        if let bytes = known.withLock({ $0[name] }) { return SecretKey { $0.copyBytes(from: bytes) } }
        let key = try cmk.unwrap(wrap, context: context)
        let bytes = key.withBytes { [UInt8]($0) }
        known.withLock { $0[name] = bytes }
        return key
    }
    func setEnabled(_ enabled: Bool) throws(RootError) { try cmk.setEnabled(enabled) }
    func destroy() throws(RootError) { try cmk.destroy() }
}
