import ControlPlane
import FoundationEssentials

/// Who loses what when zones are revoked: told before the act.
struct BlastRadius: Encodable {
    var zones: [ZoneImpact] = []
    /// Zones of volumes that are not mounted here: they cannot be mounted any more.
    var unmounted: [String] = []
    var processes: [MountUser] = []
    /// Processes that could not be looked into: other users' need root.
    var unseenProcesses = 0
    /// There are more processes or descriptors than were looked at.
    var isCut = false
    /// Daemons that did not answer.
    var silent: [String] = []

    init(of places: [CMKTarget.Place]) {
        for place in places {
            guard let daemon = place.daemon else {
                unmounted.append(place.words)
                continue
            }
            do {
                zones.append(try DaemonClient.ask(daemon, .impact, ["zone": "\(place.zone)"], timeoutSeconds: 30))
            } catch {
                silent.append(place.words)
            }
        }
        scan()
    }

    init(_ impact: ZoneImpact) {
        zones = [impact]
        scan()
    }

    private mutating func scan() {
        var scan = MountUserScan(devices: Set(zones.compactMap(\.device)))
        scan.run()
        // Of a zone below others only what lies in it; what lies in another zone goes on.
        processes = scan.users.compactMap { user in
            var user = user
            user.uses = user.uses.filter { use in
                zones.contains { zone in zone.device == use.device && Self.holds(zone, use.path) }
            }
            return user.uses.isEmpty ? nil : user
        }
        unseenProcesses = scan.unseen
        isCut = scan.isCut
    }

    /// A path within a mount belongs to a zone when it lies in its directory. (That a zone below may take it out again is left aside: better
    /// one too many.) `nil` is a place that is not known any more.
    private static func holds(_ zone: ZoneImpact, _ path: String?) -> Bool {
        guard let path, let root = zone.path, !root.isEmpty else { return true }
        return Paths.isInside(path, root)
    }

    func show(json: Bool) throws {
        if json { return try printJSON(self) }
        var lines: [String] = []
        for zone in zones {
            let path = zone.mountPoint + (zone.path.map { $0.isEmpty ? "" : "/\($0)" } ?? " (zone \(zone.zone))")
            lines += [
                "zone \(zone.zone)  \(path)  \(zone.state)",
                "  \(zone.knownInodes) files and directories known to the kernel, \(zone.openFiles) open files",
                "  by this command at once; by another program's change in the token within \(zone.probeSeconds) s and the token's answer; "
                    + "\(zone.leaseSeconds) s if the owner is silent",
            ]
        }
        lines += unmounted.map { "\($0)  not mounted: could not be mounted any more" }
        lines += silent.map { "\($0)  its daemon does not answer: its lease bounds how long it goes on" }
        lines.append(processes.isEmpty ? "no process seen that uses them" : "processes that would lose access:")
        for user in processes {
            lines.append("  pid \(user.pid)  uid \(user.uid)  \(user.command)  \(user.summary)")
        }
        if unseenProcesses > 0 {
            lines.append("NOT SEEN: \(unseenProcesses) processes of other users; root sees them")
        }
        if isCut { lines.append("NOT COMPLETE: there are more processes or descriptors than were looked at") }
        FileHandle.standardOutput.write(lines.joined(separator: "\n") + "\n")
    }
}
