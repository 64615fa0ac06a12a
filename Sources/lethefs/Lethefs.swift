import ArgumentParser

/// The command.
@main
struct Lethefs: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lethefs",
        abstract: "An encrypting file system over any directory, readable for as long as a key in your HSM says so.",
        discussion: """
            Programs write ordinary files below a mount point; the lower directory holds only ciphertext. Each file has a \
            data-encryption key (DEK) of its own, wrapped by a key-encryption key (KEK), which a customer master key (CMK) \
            inside an HSM or token wraps.

              lethefs init /srv/cipher              make a volume
              lethefs mount /srv/cipher /srv/data   returns when the mount answers
              lethefs status /srv/data
              lethefs unmount /srv/data

            Without more words the CMK lives in a SoftHSM2 token of this host. One in an HSM is named by a PKCS#11 URI (RFC 7512):

              lethefs init /srv/cipher --root \\
              'pkcs11:token=prod;object=cmk?module-path=/usr/lib/hsm.so&pin-source=/etc/pin'

            State of this host (trusted root URIs, embedded tokens, logs) lives in $LETHEFS_HOME: /var/lib/lethefs for root, \
            the XDG data directory otherwise. docs/COMMANDS.md lists root URIs, exit codes and the fields of --json.
            """,
        version: version,
        subcommands: [
            InitCommand.self, MountCommand.self, UnmountCommand.self, StatusCommand.self, CMKCommand.self,
            CheckCommand.self, ZoneCommand.self, RevokeCommand.self, RestoreCommand.self, KEKCommand.self,
            CoverageCommand.self, ReencryptCommand.self, ShredCommand.self, CertificateCommand.self, PolicyCommand.self,
            AuditCommand.self,
            GuardianCommand.self,
        ])

    #if LETHEFS_WITHOUT_ENCRYPTION
        private static let version = "lethefs 0.1.0 WITHOUT ENCRYPTION, for measuring only"
    #else
        private static let version = "lethefs 0.1.0 (format 1)"
    #endif
}
