import ControlPlane
import VolumeFormat

/// What became of a CMK and of the zones that hang on it.
struct CMKOutcome: Encodable {
    struct Zone: Encodable {
        var zone: UInt32
        var mountPoint: String?
        var lower: String
        /// How the zone stands after the daemon has asked the owner: "open" or "revoked"; `nil` for one that is not mounted, or does not answer.
        var state: String?
        /// From the owner's acknowledgement to the daemon's.
        var milliseconds: Double?
        var condition: ZoneKeeper.Condition?
        /// Why the key's new state is not in the zone's keyring.
        var notNoted: String?
        /// Whether the volume's audit log has it.
        var isAudited: Bool?
        /// Why the daemon could not be asked.
        var failure: String?
    }

    var uri: String
    /// The key's state now, as its owner shows it; "unknown" where it does not.
    var state: String
    /// From the call to the owner's acknowledgement, read back in a fresh session.
    var ownerMilliseconds: Double?
    /// Whether the owner itself still decrypts with the key; then only LetheFS refuses it. `nil` where it gave no answer.
    var usableAtOwner: Bool?
    var zones: [Zone]
    /// Why the owner did not do what it was asked.
    var failure: String?
    /// The same, for the end of the command.
    var error: Failure?

    private enum CodingKeys: CodingKey { case uri, state, ownerMilliseconds, usableAtOwner, zones, failure }

    var text: String {
        let how = ownerMilliseconds.map { "\($0) ms, read back from the owner" } ?? "NOT CHANGED as asked"
        var lines = ["\(state): \(uri)  (\(how))"]
        if usableAtOwner == true, state != KeyState.active.name {
            lines += [
                "  NOTE  the token goes on decrypting with it for other programs: it notes CKA_DECRYPT and does not enforce it.",
                "        LetheFS refuses the key. Take the key, or the programs' access to it, away with the HSM's own tools.",
            ]
        } else if usableAtOwner == nil, state != KeyState.active.name {
            lines.append(
                "  NOTE  whether the token still decrypts with it for other programs is not known: it did not answer.")
        }
        for zone in zones {
            var line = "  zone \(zone.zone) of \(zone.mountPoint ?? zone.lower): \(zone.state ?? "not mounted")"
            if let milliseconds = zone.milliseconds { line += " after \(milliseconds) ms" }
            if zone.condition?.isHeld == true { line += ", held until lethefs restore" }
            if let failure = zone.failure {
                line = "  zone \(zone.zone) of \(zone.mountPoint ?? zone.lower): \(failure)"
            }
            lines.append(line)
            if let reason = zone.notNoted {
                lines.append("        the new state is not in the zone's keyring: \(reason)")
            }
            if zone.isAudited == false { lines.append("        the volume's audit log has no record of it") }
        }
        return lines.joined(separator: "\n") + "\n"
    }
}
