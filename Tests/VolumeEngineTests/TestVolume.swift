import CLinux
import KeyManagement
import Storage
import Synchronization
import TestSupport
import VolumeEngine
import VolumeFormat

/// A volume in a directory of the test's own, mounted without FUSE.
final class TestVolume {
    let temporary: TemporaryDirectory
    let cmk: InMemoryCMK
    private(set) var lower: String
    private var held: VolumeMount?
    private let damages = DamageLog()
    private var crashes = 0
    private let options: Volume.Options
    static let root = Credentials(uid: 0, gid: 0)

    private final class DamageLog: Sendable {
        let seen = Mutex<[Damage]>([])
    }

    var mount: VolumeMount {
        guard let held else { preconditionFailure("not mounted") }
        return held
    }
    var volume: Volume { mount.volume }
    var top: Inode { volume.rootInode }
    var unlocking: KeyringUnlocking { KeyringUnlocking(resolve: resolver([cmk])) }

    /// What new volumes have: `LETHEFS_TEST_INTEGRITY=tree,names` runs every test over volumes with them.
    static let features: FeatureFlags = {
        let words = getenv("LETHEFS_TEST_INTEGRITY").map { String(cString: $0).split(separator: ",") } ?? []
        return words.reduce(into: []) { $0.insert($1 == "tree" ? .pageTree : .places) }
    }()

    /// A new volume.
    init(
        inMemory: Bool = false, cmk: InMemoryCMK? = nil, features: FeatureFlags = TestVolume.features,
        options: Volume.Options = .init()
    ) throws {
        self.options = options
        temporary = try TemporaryDirectory(inMemory: inMemory)
        let cmk = try cmk ?? InMemoryCMK()
        self.cmk = cmk
        lower = temporary["lower"]
        try VolumeCreation.prepare(lower)
        let unlocking = KeyringUnlocking(resolve: resolver([cmk]))
        try VolumeCreation.create(
            lower, volume: UniqueID(high: 1, low: 2), cmks: [cmk], policy: .anyOf, unlocking: unlocking,
            features: features)
        held = try Self.mount(lower, unlocking, damages, options)
    }

    /// Mounts a lower tree that is there already, and is another one's to remove.
    init(lower: String, in temporary: TemporaryDirectory, cmk: InMemoryCMK) throws {
        self.temporary = temporary
        self.cmk = cmk
        self.lower = lower
        options = Volume.Options()
        held = try Self.mount(lower, KeyringUnlocking(resolve: resolver([cmk])), damages, options)
    }

    private static func mount(
        _ lower: String, _ unlocking: KeyringUnlocking, _ damages: DamageLog, _ options: Volume.Options
    ) throws -> VolumeMount {
        for _ in 0..<2000 {
            do {
                return try VolumeMount(lower: lower, options: options, unlocking: unlocking) { damage in
                    damages.seen.withLock { $0.append(damage) }
                }
            } catch VolumeError.locked {
                // A program that another test starts has our descriptors until it calls exec.
                usleep(1000)
            }
        }
        throw VolumeError.locked("")
    }

    /// Damages that the engine told of since the last call.
    func takeDamages() -> [Damage] {
        damages.seen.withLock { seen in
            defer { seen = [] }
            return seen
        }
    }

    func close() throws { try mount.close() }

    /// Mounts again; the mount before is gone, closed or not.
    func open() throws {
        // It goes first: it holds the lock.
        held = nil
        held = try Self.mount(lower, unlocking, damages, options)
    }

    /// Lets the mount go without another one.
    func drop() { held = nil }

    func remount() throws {
        try close()
        try open()
    }

    /// As SIGKILL and a new daemon: what the mount holds in memory is never written, and a copy of the lower tree is mounted.
    func crash() throws {
        crashes += 1
        let copy = temporary["lower-\(crashes)"]
        try copyTree(lower, to: copy)
        lower = copy
        held = try Self.mount(copy, unlocking, damages, options)
    }

    func check() -> VolumeCheck.Report {
        _ = takeDamages()
        var options = VolumeCheck.Options()
        options.threads = 2
        guard let check = try? VolumeCheck(volume, options: options) else { preconditionFailure("no check") }
        return check.run()
    }
}
