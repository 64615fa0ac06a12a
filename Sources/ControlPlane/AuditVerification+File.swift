import Storage

extension AuditVerification {
    /// Records that are checked: so many take some gigabytes of memory.
    private static let maximumRecords = 16 << 20

    /// Walks a whole log.
    package static func run(_ file: Descriptor, _ trust: AuditTrust) throws(Errno) -> AuditReport {
        var verification = AuditVerification(trust)
        var lines = AuditLines(file)
        while let line = try lines.next() {
            guard verification.count < maximumRecords else {
                verification.giveUp("the log is longer than can be checked: \(maximumRecords) lines")
                break
            }
            verification.add(line.bytes, isComplete: line.isComplete)
        }
        return verification.finish()
    }
}
