/// What an audit record tells of. The names are the log's, and stay (AUDIT.md).
package enum AuditKind: String, Sendable, CaseIterable {
    // The log itself.
    case logStarted = "log-started"
    case checkpoint
    case logRepaired = "log-repaired"
    case logAdopted = "log-adopted"
    case logDamaged = "log-damaged"
    case recordsLost = "records-lost"
    case signingKeyChanged = "signing-key-changed"
    // The volume.
    case volumeCreated = "volume-created"
    case mounted
    case unmounted
    case crashRecovered = "crash-recovered"
    case damageMet = "damage-met"
    case restoreAccepted = "restore-accepted"
    case zoneCreated = "zone-created"
    case zoneMoveStarted = "zone-move-started"
    case zoneMoved = "zone-moved"
    // Keys.
    case keyUnwrapped = "key-unwrapped"
    case leaseRenewed = "lease-renewed"
    case outage
    case outageOver = "outage-over"
    case cmkDisabled = "cmk-disabled"
    case cmkEnabled = "cmk-enabled"
    case cmkRotated = "cmk-rotated"
    case cmkDestroyed = "cmk-destroyed"
    case cmkChangeFailed = "cmk-change-failed"
    case kekRotated = "kek-rotated"
    case versionRetired = "version-retired"
    case versionCompromised = "version-compromised"
    case policyChanged = "policy-changed"
    case cryptoperiodWarning = "cryptoperiod-warning"
    case cryptoperiodRotated = "cryptoperiod-rotated"
    case revoked
    case restored
    case guardianPurged = "guardian-purged"
    // Data.
    case reencryptionStarted = "reencryption-started"
    case reencryptionFinished = "reencryption-finished"
    case shredded
}
