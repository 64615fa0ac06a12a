import Storage

extension AuditVerification {
    /// Walks a whole log.
    package static func run(_ file: Descriptor, _ trust: AuditTrust) throws(Errno) -> AuditReport {
        var verification = AuditVerification(trust)
        var lines = AuditLines(file)
        while let line = try lines.next() { verification.add(line.bytes, isComplete: line.isComplete) }
        return verification.finish()
    }
}
