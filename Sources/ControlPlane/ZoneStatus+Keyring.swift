import FoundationEssentials
import VolumeFormat

extension ZoneStatus {
    /// From a keyring as it is stored, and of a mounted volume how the zone stands.
    package init(_ keyring: ZoneKeyring, _ condition: ZoneKeeper.Condition? = nil) {
        func since(_ history: [StateChange]) -> Date { Date(timeIntervalSince1970: Double(history.last?.at ?? 0)) }
        self.init(
            zone: keyring.zone.rawValue, policy: keyring.policy == .anyOf ? "any-of" : "all-of",
            cmks: keyring.cmks.map {
                Root(
                    uri: $0.uri, state: ($0.history.last?.state ?? .preActivation).name, since: since($0.history),
                    history: $0.history.map(Entered.init))
            },
            keks: keyring.keks.map {
                Key(version: $0.version.rawValue, state: $0.state.name, since: since($0.history))
            }, condition: condition)
    }
}
