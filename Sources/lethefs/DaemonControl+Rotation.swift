import ControlPlane
import FoundationEssentials
import VolumeEngine
import VolumeFormat

extension ControlVerb {
    /// The sweeps that are under way.
    static let sweeps = ControlVerb("sweeps")
    /// zone, compromised=1
    static let kekRotate = ControlVerb("kek-rotate")
    /// zone, version
    static let kekRetire = ControlVerb("kek-retire")
    /// zone, roots: JSON array of URIs
    static let cmkRotate = ControlVerb("cmk-rotate")
    /// zone, or none for all
    static let coverage = ControlVerb("coverage")
    /// path (in the mount, "" for the zone), zone, rate, yields=1, background=1
    static let reencrypt = ControlVerb("reencrypt")
    /// zone, action: pause, resume, cancel
    static let reencryptSteer = ControlVerb("reencrypt-steer")
    /// paths: JSON array; pid: of the command, which deletes then. Notes the shredding; answers with the zones.
    static let shredBegin = ControlVerb("shred-begin")
    /// zone, pid, request: JSON of what was deleted and by whom. After the files were deleted.
    static let shredFinish = ControlVerb("shred-finish")
}

extension DaemonServices {
    private static func zone(_ arguments: [String: String]) throws -> ZoneID {
        guard let number = UInt32(arguments["zone"] ?? "0") else { throw Failure(.invalid, "not a zone's number") }
        return ZoneID(rawValue: number)
    }

    /// The command that asks.
    private static func process(_ arguments: [String: String]) throws -> Int32 {
        guard let pid = Int32(arguments["pid"] ?? ""), pid > 0 else { throw Failure(.invalid, "not a process") }
        return pid
    }

    func writable() throws {
        guard !request.readOnly else {
            throw Failure(
                .invalid, "\(request.mountPoint) is mounted read-only", meaning: "Nothing was changed.",
                remedy: "mount it without ro")
        }
    }

    static let rotationVerbs: [ControlVerb: DaemonControl.Handler] = [
        .sweeps: { services, _ in services.sweeps.status },
        .kekRotate: { services, arguments in
            try services.writable()
            return try services.rotation.rotateKEK(zone(arguments), compromised: arguments["compromised"] == "1")
        },
        .kekRetire: { services, arguments in
            try services.writable()
            guard let version = UInt32(arguments["version"] ?? "") else { throw Failure(.invalid, "not a KEK version") }
            return try services.rotation.retire(zone(arguments), KeyVersion(rawValue: version))
        },
        .cmkRotate: { services, arguments in
            try services.writable()
            let uris = arguments["roots"].flatMap { try? JSONDecoder().decode([String].self, from: Data($0.utf8)) }
            return try services.rotation.rotateCMK(zone(arguments), uris ?? [])
        },
        .reencrypt: { services, arguments in
            try services.writable()
            let path = arguments["path"] ?? ""
            let zone = try path.isEmpty ? zone(arguments) : services.rotation.zone(of: path)
            return try services.rotation.reencrypt(
                zone, path: path.isEmpty ? nil : path, rate: UInt32(arguments["rate"] ?? "0") ?? 0,
                yields: arguments["yields"] == "1", background: arguments["background"] == "1")
        },
        .reencryptSteer: { services, arguments in
            try services.writable()
            return try services.rotation.steer(zone(arguments), arguments["action"] ?? "")
        },
        .shredBegin: { services, arguments in
            try services.writable()
            let paths = arguments["paths"].flatMap { try? JSONDecoder().decode([String].self, from: Data($0.utf8)) }
            return try services.rotation.beginShredding(paths ?? [], by: process(arguments))
        },
        .shredFinish: { services, arguments in
            try services.writable()
            guard let data = arguments["request"].map({ Data($0.utf8) }),
                let asked = try? JSONDecoder().decode(SanitizationCertificate.Asked.self, from: data)
            else { throw Failure(.invalid, "not a request to shred") }
            return try services.rotation.finishShredding(zone(arguments), asked, by: process(arguments))
        },
        .coverage: { services, arguments in
            try services.rotation.coverage(arguments["zone"] == nil ? nil : zone(arguments))
        },
    ]
}
