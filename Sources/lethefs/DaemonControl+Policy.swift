import ControlPlane
import FoundationEssentials

extension ControlVerb {
    static let policy = ControlVerb("policy")
    /// change: JSON of what is asked for
    static let policySet = ControlVerb("policy-set")
}

extension DaemonServices {
    var policyReport: PolicyReport {
        PolicyReport(cryptoperiods.policy, revertedFrom: cryptoperiods.revertedFrom, cryptoperiods.reviews())
    }

    static let policyVerbs: [ControlVerb: DaemonControl.Handler] = [
        .policy: { services, _ in services.policyReport },
        .policySet: { services, arguments in
            try services.writable()
            guard let data = arguments["change"].map({ Data($0.utf8) }),
                let change = try? JSONDecoder().decode(PolicyChange.self, from: data)
            else { throw Failure(.invalid, "not a change of the policy") }
            let fields = try services.administration.withLock { _ in
                try change.store(in: services.mount, services.host, lower: services.request.lower)
            }
            services.cryptoperiods.policyChanged()
            services.audit?.append(.policyChanged, fields)
            return services.policyReport
        },
    ]
}
