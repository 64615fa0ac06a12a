import CLinux
import ControlPlane
import FoundationEssentials
import KeyManagement
import Storage
import VolumeEngine
import VolumeFormat

/// Rotations as commands and verbs ask for them, on a mounted volume or on one that a command has opened for itself.
struct Rotation {
    let mount: VolumeMount
    let roots: TrustedRoots
    let host: Host
    let lower: String
    let sweeps: Sweeps
    /// Zones in which a command deletes what is to be shredded.
    let shreddings = ZoneClaims()
    /// Of a mounted volume.
    var audit: AuditLog?
    /// For the log; never a secret or a plaintext name.
    let note: @Sendable (String) -> Void

    var editing: KeyringEditing {
        let roots = roots
        return KeyringEditing { (uri) throws(RootError) in try roots.current.resolve(uri) }
    }

    /// What a command did, and what it did not: three rotations, three names.
    struct Report: Codable, Sendable {
        var zone: UInt32
        /// The CMKs that wrap the KEKs now.
        var cmks: [String]
        var newCMK = false
        /// The active KEK version.
        var kek: UInt32
        var newKEK = false
        /// Files and directories whose DEKs were wrapped by another KEK.
        var rewrapped: UInt64 = 0
        /// Files whose contents were encrypted again under new DEKs.
        var reencrypted: UInt64 = 0
        /// Version keys destroyed in the tokens.
        var versionKeysDestroyed = 0
        var files: UInt64 = 0
        var seconds: Double = 0
        /// KEK versions that old copies of the keyring open with the CMK alone.
        var unguarded: [UInt32] = []
        /// Work that goes on in the background, or waits.
        var pending: [String] = []
    }

    /// Runs `body`; volume errors become failures with words.
    func reporting<R>(_ body: () throws -> R) throws -> R {
        do { return try body() } catch let error as VolumeError { throw Failure(error, lower: lower) } catch let error
            as Errno
        { throw Failure(VolumeError.lower(error, "rotating"), lower: lower) }
    }

    func report(_ zone: ZoneID) throws -> Report {
        guard let keyring = mount.keyring(zone) else { throw unknown(zone) }
        return Report(
            zone: zone.rawValue, cmks: keyring.cmks.filter(\.isInUse).map(\.uri),
            kek: keyring.activeKEK?.version.rawValue ?? 0, unguarded: keyring.unguardedKEKs.map(\.rawValue),
            pending: keyring.pending.map(Self.text))
    }

    static func text(_ work: PendingWork) -> String {
        let kind =
            switch work.kind {
            case .rewrap: "rewrap under KEK v\(work.version.rawValue)"
            case .reencrypt where work.started == 0: "seal links anew by the newest metadata key"
            case .reencrypt:
                "re-encrypt what is older than \(Date(timeIntervalSince1970: Double(work.started)).formatted(.iso8601))"
            case .shred: "shred the KEKs before v\(work.version.rawValue)"
            case .purge: "destroy unused version keys of KEK v\(work.version.rawValue)"
            case .assign: "take over a tree from zone \(work.source?.rawValue ?? 0)"
            }
        return kind + (work.flags.contains(.paused) ? " (paused)" : "")
    }

    func unknown(_ zone: ZoneID) -> Failure {
        Failure(
            .invalid, "\(lower) has no zone \(zone.rawValue)", meaning: "Nothing was changed.",
            remedy: "lethefs status \(lower)  lists the zones")
    }

    /// New KEK version; every DEK is wrapped by it. No contents are touched.
    func rotateKEK(_ zone: ZoneID, compromised: Bool) throws -> Report {
        guard mount.keyring(zone) != nil else { throw unknown(zone) }
        let start = SweepClock.now
        return try reporting {
            try sweeps.run(zone, .rewrap) { control in
                let version = try mount.rotateKEK(zone, editing: editing, compromised: compromised)
                note(
                    "zone \(zone.rawValue): KEK v\(version.rawValue) made\(compromised ? ", the one before is compromised" : "")"
                )
                audit?.append(.kekRotated, zone: zone, ["version": "\(version.rawValue)"])
                if compromised {
                    audit?.append(.versionCompromised, zone: zone, ["before": "\(version.rawValue)"])
                }
                try mount.rewrap(zone, control: control)
                var report = try report(zone)
                report.newKEK = true
                report.rewrapped = control.progress.changed
                report.files = control.progress.files
                report.seconds = SweepClock.now - start
                note("zone \(zone.rawValue): \(report.rewrapped) headers wrapped by KEK v\(version.rawValue)")
                return report
            }
        }
    }

    /// Destroys a KEK version that protects nothing.
    func retire(_ zone: ZoneID, _ version: KeyVersion) throws -> Report {
        guard mount.keyring(zone) != nil else { throw unknown(zone) }
        let start = SweepClock.now
        return try reporting {
            let destroyed = try sweeps.run(zone, .keys) { _ in try mount.retire(zone, version, editing: editing) }
            note("zone \(zone.rawValue): KEK v\(version.rawValue) destroyed, \(destroyed) version keys in the tokens")
            audit?.append(
                .versionRetired, zone: zone, ["version": "\(version.rawValue)", "versionKeys": "\(destroyed)"])
            var report = try report(zone)
            report.versionKeysDestroyed = destroyed
            report.seconds = SweepClock.now - start
            return report
        }
    }

    /// New CMK: the KEKs are wrapped by it. Without `uris`, a key beside each old one, named after it.
    func rotateCMK(_ zone: ZoneID, _ uris: [String]) throws -> Report {
        guard let keyring = mount.keyring(zone) else { throw unknown(zone) }
        let start = SweepClock.now
        let old = keyring.cmks.filter(\.isInUse)
        let named = try uris.isEmpty ? old.map { try Self.successor(of: $0.uri, roots.current) } : uris
        guard keyring.policy == .anyOf || named.count == old.count else {
            throw Failure(
                .invalid, "zone \(zone.rawValue) needs \(old.count) CMKs: its policy is all-of",
                remedy: "give --root \(old.count) times")
        }
        var cmks: [any CustomerMasterKey] = []
        for uri in named {
            do throws(RootError) { cmks.append(try Roots.openOrCreate(uri).cmk) } catch {
                throw Failure(error, uri: Roots.withoutPIN(uri))
            }
        }
        // First what this host must know to mount it again.
        let volume = mount.volume.description.volume
        var record = host.readRecord(volume) ?? Host.VolumeRecord(roots: roots.current.trusted)
        let kept = zip(named, cmks).map { Self.kept($0, $1.uri) }
        record.roots = kept + record.roots.filter { !kept.contains($0) }
        try host.writeRecord(volume, record)
        for uri in kept { roots.add(uri) }
        return try reporting {
            let destroyed = try sweeps.run(zone, .keys) { _ in
                var isReplaced = false
                do {
                    return try mount.replaceCMKs(zone, with: cmks, editing: editing) {
                        isReplaced = true
                        recordRotation(zone, cmks)
                    }
                } catch let error as VolumeError where isReplaced { throw recordLeftKeys(zone, error) }
            }
            var report = try report(zone)
            report.newCMK = true
            report.versionKeysDestroyed = destroyed
            report.seconds = SweepClock.now - start
            return report
        }
    }

    /// The new CMKs hold: the keyring that says so is stored.
    private func recordRotation(_ zone: ZoneID, _ cmks: [any CustomerMasterKey]) {
        note("zone \(zone.rawValue): KEKs wrapped by another CMK")
        audit?.append(.cmkRotated, zone: zone, ["cmk": cmks.first?.uri ?? ""])
        // The root zone's CMK has the key that signs the log beside it.
        if zone == .root, let signer = try? cmks.first?.signer(creating: true) { audit?.use(signer) }
    }

    /// The owner of an old CMK did not destroy the version keys beside it; what is to be said of that.
    private func recordLeftKeys(_ zone: ZoneID, _ error: VolumeError) -> Failure {
        var failure = Failure(error, lower: lower)
        failure.meaning =
            "The CMK is rotated. Version keys beside the old one are left, with which old copies of the keyring still open."
        failure.remedy =
            "see that the old CMK's token answers; a mounted volume tries again by itself, as  lethefs coverage  shows"
        note("zone \(zone.rawValue): version keys beside the CMK of before are left: \(failure.what)")
        guard case .keyring(.root(let answer, let uri)) = error else { return failure }
        audit?.append(
            .cmkChangeFailed, zone: zone,
            ["cmk": uri, "asked": "version-keys-destroyed", "state": "unknown", "answer": answer.detail])
        return failure
    }

    /// New DEKs for a zone, or for one directory or file in it; every byte under an old one is encrypted again.
    func reencrypt(_ zone: ZoneID, path: String?, rate: UInt32, yields: Bool, background: Bool) throws -> Report {
        guard mount.keyring(zone) != nil else { throw unknown(zone) }
        let start = SweepClock.now
        let flags: PendingWork.Flags = yields ? [.yields] : []
        return try reporting {
            try sweeps.run(zone, .reencrypt) { control in
                let scope = try path.map { try mount.volume.identity(of: $0) }
                let work = try mount.beginReencryption(zone, scope: scope, rate: rate, flags: flags, editing: editing)
                note("zone \(zone.rawValue): re-encryption begins")
                audit?.append(.reencryptionStarted, zone: zone, ["scope": path == nil ? "zone" : "path"])
                guard !background else { return try report(zone) }
                let count = try mount.reencrypt(zone, work, editing: editing, control: control)
                var report = try report(zone)
                report.reencrypted = count
                report.files = control.progress.files
                report.seconds = SweepClock.now - start
                note("zone \(zone.rawValue): \(count) files re-encrypted, \(control.progress.sealed) bytes")
                finished(zone, count)
                return report
            }
        }
    }

    /// A re-encryption that was interrupted, by an unmount or by command, is not finished.
    func finished(_ zone: ZoneID, _ count: UInt64) {
        guard mount.keyring(zone)?.pending.contains(where: { $0.kind == .reencrypt }) == false else { return }
        audit?.append(.reencryptionFinished, zone: zone, ["files": "\(count)"])
    }

    /// Pauses, resumes or ends what is noted of re-encryptions in a zone.
    func steer(_ zone: ZoneID, _ action: String) throws -> Report {
        guard let keyring = mount.keyring(zone) else { throw unknown(zone) }
        let work = keyring.pending.filter { $0.kind == .reencrypt }
        guard !work.isEmpty else {
            throw Failure(
                .invalid, "no re-encryption is under way in zone \(zone.rawValue)", meaning: "Nothing was changed.")
        }
        return try reporting {
            // The notes come first: a sweep that begins meanwhile has read its note after that, or is found by its control.
            switch action {
            case "cancel":
                try mount.cancel(zone, .reencrypt)
                sweeps.control(zone, .reencrypt)?.cancel()
            case "pause", "resume":
                for var one in work {
                    if action == "pause" { one.flags.insert(.paused) } else { one.flags.remove(.paused) }
                    try mount.update(zone, one)
                }
                sweeps.control(zone, .reencrypt)?.setPaused(action == "pause")
            default: throw Failure(.invalid, "not an action: \(action)")
            }
            note("zone \(zone.rawValue): re-encryption: \(action)")
            return try report(zone)
        }
    }

    /// Takes up what a crash, an unmount or a revocation interrupted, and what was begun in the background. With `orphans`, also a
    /// shredding whose command is gone.
    ///
    /// Each piece of work is tried, whatever came of the others; the first failure is told at the end.
    func resume(orphans: Bool) throws {
        var first: (any Error)?
        for zone in mount.zoneKeyrings.map(\.zone) {
            guard let state = try? mount.volume.zone(zone), state.isOpen else { continue }
            for listed in mount.keyring(zone)?.pending ?? [] {
                guard !sweeps.isEnding else { return }
                // The one before it took its time: it may have been ended since, or paused.
                guard let work = noted(zone, listed) else { continue }
                if work.flags.contains(.paused), !(orphans && work.kind == .shred) { continue }
                // It is no orphan while its command deletes.
                if work.kind == .shred, shreddings.isHeld(zone) { continue }
                guard !sweeps.isRunning(zone), isReady(work) else { continue }
                note("zone \(zone.rawValue): going on: \(Self.text(work))")
                do { try reporting { try resume(zone, work) } } catch {
                    if first == nil { first = error }
                }
            }
        }
        if let first { throw first }
    }

    /// A piece of work as it is listed now; `nil` when it is not.
    private func noted(_ zone: ZoneID, _ work: PendingWork) -> PendingWork? {
        mount.keyring(zone)?.pending.first { $0.isSame(as: work) }
    }

    private func resume(_ zone: ZoneID, _ work: PendingWork) throws {
        switch work.kind {
        case .rewrap: try sweeps.run(zone, .rewrap) { try mount.rewrap(zone, control: $0) }
        case .purge: _ = try sweeps.run(zone, .keys) { _ in try mount.purge(zone, editing: editing) }
        case .assign: try resumeAssignment(zone, work)
        case .reencrypt:
            let count = try sweeps.run(zone, .reencrypt) { control -> UInt64? in
                // From here on who pauses it or ends it finds its control.
                guard let work = noted(zone, work), !work.flags.contains(.paused) else { return nil }
                return try mount.reencrypt(zone, work, editing: editing, control: control)
            }
            guard let count else { return }
            note("zone \(zone.rawValue): \(count) files re-encrypted")
            finished(zone, count)
        case .shred: try resumeShredding(zone, work)
        }
    }

    /// Looks after what is noted for as long as the process serves. On a thread of its own.
    func keep() {
        var first = true
        var failures = 0
        while !sweeps.isEnding {
            do {
                try resume(orphans: first)
                failures = 0
            } catch {
                failures += 1
                note("what was to be rotated is not done yet: \((error as? Failure)?.what ?? "\(error)")")
            }
            first = false
            // After failures ever more seldom, up to ten minutes.
            var ticks = min(6000, 20 << min(failures, 10))
            while ticks > 0, !sweeps.isEnding {
                usleep(100_000)
                ticks -= 1
            }
        }
    }
}

enum SweepClock {
    /// Seconds of a clock that only goes forward.
    static var now: Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
