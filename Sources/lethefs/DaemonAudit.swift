import CLinux
import ControlPlane
import KeyManagement
import Logging
import Storage
import VolumeEngine
import VolumeFormat

/// The audit log of a volume that this process has unlocked.
enum AuditOpening {
    /// For a mount that may write. A log that cannot be opened costs the audit, not the data: it is said, and the mount goes on.
    static func open(_ mount: VolumeMount, _ roots: TrustedRoots, _ host: Host, _ log: Logger) -> AuditLog? {
        guard !mount.volume.options.readOnly, let keyring = mount.keyring(.root) else { return nil }
        let volume = mount.volume.description.volume
        var options = AuditLog.Options(volume: volume) {
            try? mount.volume.zone(.root).storingKeys()
        } onCheckpoint: {
            host.writeAuditPin(volume, $0)
        }
        options.remembered = host.readAuditPin(volume)?.head
        options.isExpected = mount.volume.description.settings[.audited] == 1
        do {
            let audit = try AuditLog.open(mount.volumeDirectory, options) { known in
                let signer = signer(of: keyring.cmks.map(\.uri), known, creating: true) { (uri) throws(RootError) in
                    try roots.current.resolve(uri)
                } onFailure: {
                    log.warning("no signing key beside \($0): \($1)")
                }
                if signer == nil {
                    log.warning("the audit log is not signed: no token of the volume makes a signing key")
                }
                return signer
            }
            warn(options.remembered, audit, log)
            return audit
        } catch {
            log.error("NO AUDIT LOG in this mount: \(Failure(error).what)")
            return nil
        }
    }

    /// The log of a new volume: made, begun and sealed before the volume is there. Gives the id of the key that signs it.
    static func begin(
        _ directory: Descriptor, _ host: Host, _ keys: ZoneKeys, _ cmks: [any CustomerMasterKey], createdCMKs: Int
    ) throws(VolumeError) -> String? {
        let options = AuditLog.Options(volume: keys.volume, keys: { keys }) { host.writeAuditPin(keys.volume, $0) }
        do {
            let log = try AuditLog.open(directory, options) { _ in
                for cmk in cmks { if let signer = try? cmk.signer(creating: true) { return signer } }
                return nil
            }
            let fields = ["user": "\(geteuid())", "host": AuditLog.hostName, "made-cmks": "\(createdCMKs)"]
                .merging(AuditLog.cmkFields(cmks.map(\.uri))) { $1 }
            guard log.append(.volumeCreated, zone: .root, fields) else {
                throw AuditError.lower(.io, "writing .lethefs/audit/log")
            }
            log.close()
            return log.publicKeys.first.flatMap { try? Signature.keyID(of: $0) }
        } catch let error as AuditError {
            if case .lower(let errno, let doing) = error { throw .lower(errno, doing) }
            throw .cipher
        } catch { throw .cipher }
    }

    /// The signing key beside one of these CMKs: one that the log knows, else the first to be had.
    static func signer(
        of uris: [String], _ known: [[UInt8]], creating: Bool,
        resolve: (String) throws(RootError) -> any CustomerMasterKey, onFailure: (String, String) -> Void
    ) -> (any Signer)? {
        var cmks: [any CustomerMasterKey] = []
        for uri in uris {
            do throws(RootError) {
                let cmk = try resolve(uri)
                if let signer = try cmk.signer(creating: false), known.contains(signer.publicKey) { return signer }
                cmks.append(cmk)
            } catch { onFailure(uri, error.detail) }
        }
        guard creating else { return nil }
        for cmk in cmks {
            do throws(RootError) {
                if let signer = try cmk.signer(creating: true) { return signer }
            } catch { onFailure(cmk.uri, error.detail) }
        }
        return nil
    }

    /// The KEK's word counts; that this host knew it otherwise is worth a look.
    private static func warn(_ remembered: AuditLog.Head?, _ audit: AuditLog, _ log: Logger) {
        guard let remembered, !remembered.keys.allSatisfy({ audit.publicKeys.contains($0) }) else { return }
        log.error("the audit log's key list lacks a key that this host remembers: an older list was put in its place")
        audit.append(.logDamaged, ["what": "the key list lacks a key that the host remembers"])
    }
}

extension AuditLog {
    /// The records at the beginning of a mount.
    func noteMount(_ mount: VolumeMount, _ request: MountRequest, _ unwrapped: Duration) {
        let volume = mount.volume
        let milliseconds = Int(unwrapped / .milliseconds(1))
        if volume.hasFoundCrash {
            post(.crashRecovered, ["crashed-epoch": "\(volume.epoch - 1)", "epoch": "\(volume.epoch)"])
        }
        post(
            .mounted,
            [
                "mount-point": request.mountPoint, "lower": request.lower, "epoch": "\(volume.epoch)",
                "user": "\(geteuid())", "host": Self.hostName, "pid": "\(getpid())",
            ])
        for keyring in mount.zoneKeyrings where mount.lockedZones[keyring.zone] == nil {
            post(.keyUnwrapped, zone: keyring.zone, Self.keyFields(keyring, milliseconds: milliseconds))
        }
        flush()
    }

    static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Which KEKs came out of which CMKs.
    static func keyFields(_ keyring: ZoneKeyring, milliseconds: Int) -> [String: String] {
        let fields = [
            "keks": keyring.keks.filter { $0.state.mayDecrypt }.map { "\($0.version.rawValue)" }
                .joined(separator: " "),
            "policy": keyring.policy == .anyOf ? "any-of" : "all-of",
            "mount-milliseconds": "\(milliseconds)",
        ]
        return fields.merging(cmkFields(keyring.cmks.map(\.uri))) { $1 }
    }

    /// CMKs by their URIs, which hold no PIN.
    static func cmkFields(_ uris: [String]) -> [String: String] {
        Dictionary(uniqueKeysWithValues: uris.enumerated().map { ("cmk-\($0.offset + 1)", $0.element) })
    }

    /// What a CMK's owner answered, or that the keyring itself was amiss.
    private static func answer(_ error: KeyringError) -> String {
        guard case .root(let answer, _) = error else { return "keyring" }
        return answer.code.rawValue
    }

    /// What happens to a zone's keys. Called by the keeper's thread, which nothing may hold up.
    func note(_ event: ZoneKeeper.Event) {
        switch event {
        case .renewed(let zone): count(.leaseRenewed, zone: zone, "renewals")
        // An owner that comes and goes does not fill the log.
        case .outage(let zone, let error): count(.outage, zone: zone, Self.answer(error), urgent: true)
        case .outageOver(let zone): count(.outageOver, zone: zone, "times", urgent: true)
        case .revoked(let report):
            post(
                .revoked, zone: ZoneID(rawValue: report.zone),
                [
                    "cause": report.cause, "errno": "\(report.errno)",
                    "drained-milliseconds": "\(report.drainedMilliseconds)",
                    "closed-milliseconds": "\(report.closedMilliseconds)",
                    "purged-milliseconds": "\(report.purgedMilliseconds)",
                    "canary-milliseconds": "\(report.canaryMilliseconds)", "canary": report.canary,
                    "inodes": "\(report.inodes)", "open-files": "\(report.openFiles)",
                    "drained": report.isDrained ? "yes" : "no", "complete": report.isComplete ? "yes" : "no",
                    "requests-wiped": report.areRequestsWiped ? "yes" : "no",
                ])
        case .restored(let zone, let seconds):
            post(.restored, zone: zone, ["closed-seconds": "\((seconds * 1000).rounded() / 1000)"])
        }
    }
}
