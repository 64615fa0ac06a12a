import ControlPlane
import FoundationEssentials
import KeyManagement
import Storage
import VolumeEngine
import VolumeFormat

/// The log that an `audit` command means, and what it can be checked against.
struct AuditSource {
    private let lower: String
    private let daemon: RuntimeDirectory.Record?
    private let files: VolumeFiles
    private let audit: AuditFiles
    private let volume: UniqueID

    init(_ target: String) throws {
        switch try Target(target) {
        case .mounted(let record, _): (lower, daemon) = (record.lower, record)
        case .lower(let path): (lower, daemon) = (path, nil)
        }
        do throws(VolumeError) {
            files = try VolumeFiles(lower: lower)
            volume = try files.readDescription().value.volume
        } catch { throw Failure(error, lower: lower) }
        do throws(AuditError) { audit = try AuditFiles(volumeDirectory: files.directory, creating: false) } catch {
            throw Failure(error)
        }
    }

    /// By zone, the KEK versions that its keyring calls destroyed; the keyrings are not authenticated here.
    var destroyedKEKs: [UInt32: [UInt32]] {
        get throws {
            do throws(VolumeError) {
                var destroyed: [UInt32: [UInt32]] = [:]
                for zone in try files.zoneIDs() {
                    destroyed[zone.rawValue] = try files.keyring(zone).keks.filter { $0.state == .destroyed }
                        .map(\.version.rawValue)
                }
                return destroyed
            } catch { throw Failure(error, lower: lower) }
        }
    }

    func forEachLine(_ body: ([UInt8]) throws -> Void) throws {
        let file: Descriptor
        do throws(AuditError) { file = try audit.openLog() } catch { throw Failure(error) }
        var lines = AuditLines(file)
        do {
            while let line = try lines.next() { if line.isComplete { try body(line.bytes) } }
        } catch let error as Errno { throw Failure(AuditError.lower(error, "reading .lethefs/audit/log")) }
    }

    func verify(_ trust: AuditTrust) throws -> AuditReport {
        let file: Descriptor
        do throws(AuditError) { file = try audit.openLog() } catch { throw Failure(error) }
        do { return try AuditVerification.run(file, trust) } catch {
            throw Failure(AuditError.lower(error, "reading .lethefs/audit/log"))
        }
    }

    /// What vouches for the log: the KEK's seals where they can be had, and this host's memory. What could not be had is said.
    func trust(roots: [String]) throws -> (AuditTrust, remarks: [String]) {
        var trust = AuditTrust()
        var remarks: [String] = []
        trust.volume = "\(volume)"
        trust.isLive = daemon != nil
        let pin = Host().readAuditPin(volume)
        if let head = pin?.head { trust.remembered = (head.sequence, head.hash) }
        if let pin, !pin.publicKeys.isEmpty { (trust.keys, trust.keySource) = (pin.publicKeys, .host) }
        do {
            try add(try seals(roots), to: &trust, &remarks)
        } catch let failure as Failure {
            remarks.append("the seals were not checked: \(failure.what.split(separator: "\n").first ?? "")")
        }
        return (trust, remarks)
    }

    private func add(_ seals: AuditSeals, to trust: inout AuditTrust, _ remarks: inout [String]) throws {
        if let keys = seals.keys, !keys.isEmpty {
            (trust.keys, trust.keySource) = (keys.compactMap { Base64.decode($0) }, .sealed)
        }
        if let sequence = seals.sequence, let hash = seals.hash.flatMap({ [UInt8](hexadecimal: $0) }) {
            trust.sealedHead = (sequence, hash)
        }
        trust.brokenSeals = seals.problems
        remarks += seals.remarks
    }

    /// From the daemon, or by unlocking the volume.
    private func seals(_ roots: [String]) throws -> AuditSeals {
        if let daemon { return try DaemonClient.ask(daemon, .auditSeals, timeoutSeconds: 30) }
        do {
            guard let known = try Roots.of(files, given: roots, Host().readRecord(volume)) else {
                throw Failure(.keyNotFound, "this host does not know the CMK")
            }
            let unlocking = KeyringUnlocking { (uri) throws(RootError) in try known.resolve(uri) }
            return AuditSeals(audit, try unlocking.unlock(try files.keyring(.root)))
        } catch let error as KeyringError {
            throw Failure(VolumeError.keyring(error), lower: lower)
        } catch let error as VolumeError { throw Failure(error, lower: lower) }
    }
}
