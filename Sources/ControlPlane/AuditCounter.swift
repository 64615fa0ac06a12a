import VolumeFormat

/// Events that come too often for a record each.
struct AuditCounter {
    let kind: AuditKind
    let zone: UInt32?
    let intervalSeconds: Int
    var counts: [String: Int] = [:]
    /// When a record of them was last written.
    var lastWritten: Int?
}

extension AuditLog {
    /// Counters of one record at most; more kinds of the same event are counted together.
    private static let maximumNames = 16

    /// Counts an event. A record with the counts is written at most every `intervalSeconds`, and at the end; where it is urgent,
    /// the first one within a second. Takes a leaf lock and does no I/O: it may be called from anywhere.
    package func count(
        _ kind: AuditKind, zone: ZoneID? = nil, _ name: String, every intervalSeconds: Int = 600, urgent: Bool = false
    ) {
        counters.withLock { counters in
            let index =
                counters.firstIndex { $0.kind == kind && $0.zone == zone?.rawValue }
                ?? {
                    counters.append(
                        AuditCounter(
                            kind: kind, zone: zone?.rawValue, intervalSeconds: intervalSeconds,
                            lastWritten: urgent ? nil : MonotonicTime.now))
                    return counters.count - 1
                }()
            let known = counters[index].counts[name] != nil || counters[index].counts.count < Self.maximumNames
            counters[index].counts[known ? name : "other", default: 0] += 1
        }
    }

    func flushCounters(all: Bool) {
        let now = MonotonicTime.now
        let due = counters.withLock { counters -> [AuditCounter] in
            var due: [AuditCounter] = []
            for index in counters.indices where !counters[index].counts.isEmpty {
                let age = counters[index].lastWritten.map { now - $0 } ?? Int.max
                guard all || age >= counters[index].intervalSeconds else { continue }
                due.append(counters[index])
                counters[index].counts = [:]
                counters[index].lastWritten = now
            }
            return due
        }
        for counter in due {
            append(
                counter.kind, zone: counter.zone.map { ZoneID(rawValue: $0) },
                counter.counts.mapValues { "\($0)" })
        }
    }
}
