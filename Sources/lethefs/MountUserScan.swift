import CLinux
import FoundationEssentials

/// A process that uses a mount.
struct MountUser: Encodable {
    enum Kind: String, Encodable { case file, mapping, cwd, root, program }

    struct Use: Encodable, Hashable {
        var kind: Kind
        /// Within the mount; `nil` where it has none any more.
        var path: String?
        /// "major:minor" of the mount.
        var device: String
    }

    var pid: Int32
    var uid: UInt32
    var command: String
    /// At most `MountUserScan.usesShown` of them.
    var uses: [Use]

    var summary: String {
        let kinds: [(Kind, String)] = [
            (.file, "open"), (.mapping, "mapped"), (.cwd, "working directory"), (.root, "root"), (.program, "program"),
        ]
        return kinds.compactMap { kind, word in
            let count = uses.count { $0.kind == kind }
            return count == 0 ? nil : "\(count) \(word)"
        }.joined(separator: ", ")
    }
}

/// Looks through /proc for processes that use mounts. Touches no mount: by mount ids and device numbers alone.
struct MountUserScan {
    static let usesShown = 4096
    private static let maximumProcesses = 65_536
    private static let maximumDescriptors = 4_000_000

    let devices: Set<String>
    private(set) var users: [MountUser] = []
    private(set) var unseen = 0
    private(set) var isCut = false
    private var looked = 0

    init(devices: Set<String>) { self.devices = devices }

    mutating func run() {
        guard !devices.isEmpty else { return }
        var pids = Self.names("/proc")?.compactMap { Int32($0) }.sorted() ?? []
        if pids.count > Self.maximumProcesses {
            pids = Array(pids.prefix(Self.maximumProcesses))
            isCut = true
        }
        for pid in pids where pid != getpid() { look(at: pid) }
    }

    private mutating func look(at pid: Int32) {
        let directory = "/proc/\(pid)"
        var info = stat()
        guard stat(directory, &info) == 0 else { return }
        guard let descriptors = Self.names(directory + "/fd") else {
            // One that ended meanwhile is nobody's loss; a kernel thread has nothing.
            if linux_get_errno() == EACCES { unseen += 1 }
            return
        }
        // As this process's own namespace numbers and names them.
        let mounts = Self.mounts(directory, devices)
        var uses: Set<MountUser.Use> = []
        var files: [MountUser.Use] = []
        for descriptor in descriptors where descriptor != "." && descriptor != ".." {
            looked += 1
            guard looked <= Self.maximumDescriptors else {
                isCut = true
                break
            }
            guard let mount = Self.mountID("\(directory)/fdinfo/\(descriptor)"), let found = mounts.ids[mount] else {
                continue
            }
            files.append(
                .init(kind: .file, path: found.path(Self.link("\(directory)/fd/\(descriptor)")), device: found.device))
        }
        for (name, kind) in [("cwd", MountUser.Kind.cwd), ("root", .root), ("exe", .program)] {
            guard let target = Self.link("\(directory)/\(name)"), let found = mounts.holding(target) else { continue }
            uses.insert(.init(kind: kind, path: found.path(target), device: found.device))
        }
        uses.formUnion(mappings(directory, mounts))
        let all = files + uses
        guard !all.isEmpty else { return }
        if all.count > Self.usesShown { isCut = true }
        users.append(
            MountUser(
                pid: pid, uid: info.st_uid, command: Self.command(directory), uses: Array(all.prefix(Self.usesShown))))
    }

    /// Mapped files; their lines carry the device, so that a mount that was taken away lazily is found, too.
    private func mappings(_ directory: String, _ mounts: ProcessMounts) -> Set<MountUser.Use> {
        guard let data = FileManager.default.contents(atPath: directory + "/maps") else { return [] }
        var uses: Set<MountUser.Use> = []
        for line in data.split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: " "), maxSplits: 5, omittingEmptySubsequences: true)
            guard fields.count == 6 else { continue }
            let numbers = String(decoding: fields[3], as: UTF8.self).split(separator: ":").compactMap {
                UInt32($0, radix: 16)
            }
            guard numbers.count == 2, devices.contains("\(numbers[0]):\(numbers[1])") else { continue }
            let device = "\(numbers[0]):\(numbers[1])"
            let target = String(decoding: fields[5].drop { $0 == UInt8(ascii: " ") }, as: UTF8.self)
            uses.insert(.init(kind: .mapping, path: mounts.holding(target)?.path(target), device: device))
        }
        return uses
    }

    struct ProcessMounts {
        struct Mount {
            var device: String
            var mountPoint: String

            /// Within the mount; deleted files have none.
            func path(_ target: String?) -> String? {
                guard let target, Paths.isInside(target, mountPoint), !target.hasSuffix(" (deleted)") else {
                    return nil
                }
                return String(target.dropFirst(mountPoint.count).drop { $0 == "/" })
            }
        }

        var ids: [Int: Mount] = [:]

        func holding(_ target: String) -> Mount? { ids.values.first { Paths.isInside(target, $0.mountPoint) } }
    }

    private static func mounts(_ directory: String, _ devices: Set<String>) -> ProcessMounts {
        guard let data = FileManager.default.contents(atPath: directory + "/mountinfo") else { return ProcessMounts() }
        var mounts = ProcessMounts()
        for line in data.split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: " "), maxSplits: 5)
            guard fields.count == 6, let id = Int(String(decoding: fields[0], as: UTF8.self)) else { continue }
            let device = String(decoding: fields[2], as: UTF8.self)
            guard devices.contains(device) else { continue }
            mounts.ids[id] = .init(
                device: device, mountPoint: MountTable.unescape(Substring(decoding: fields[4], as: UTF8.self)))
        }
        return mounts
    }

    private static func mountID(_ path: String) -> Int? {
        guard let data = FileManager.default.contents(atPath: path) else { return nil }
        for line in String(decoding: data, as: UTF8.self).split(separator: "\n") where line.hasPrefix("mnt_id:") {
            return Int(line.dropFirst(7).drop { $0 == "\t" || $0 == " " })
        }
        return nil
    }

    private static func link(_ path: String) -> String? {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = buffer.withUnsafeMutableBytes { bytes in
            bytes.baseAddress.map { readlink(path, $0.assumingMemoryBound(to: CChar.self), bytes.count) } ?? -1
        }
        return count > 0 ? String(decoding: buffer[..<count], as: UTF8.self) : nil
    }

    /// The words of its command line, or its name in brackets, without what a terminal would act on.
    private static func command(_ directory: String) -> String {
        var bytes = Array((FileManager.default.contents(atPath: directory + "/cmdline") ?? Data()).prefix(200))
        while bytes.last == 0 { bytes.removeLast() }
        if bytes.isEmpty {
            let name = FileManager.default.contents(atPath: directory + "/comm") ?? Data()
            bytes = Array("[".utf8) + name.filter { $0 != UInt8(ascii: "\n") } + Array("]".utf8)
        }
        return String(decoding: bytes.map { $0 < 0x20 || $0 == 0x7F ? UInt8(ascii: " ") : $0 }, as: UTF8.self)
    }

    /// The names in a directory; `nil` and errno where it cannot be read.
    private static func names(_ path: String) -> [String]? {
        guard let directory = opendir(path) else { return nil }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            names.append(
                withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                    pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                })
        }
        return names
    }
}
