import ControlPlane
import FuseServer
import KeyManagement
import Storage
import VolumeEngine
import VolumeFormat

/// The one place where errors get words and remedies.
extension Failure {
    init(_ error: VolumeError, lower: String) {
        switch error {
        case .notVolume:
            self.init(
                .notVolume, "\(lower) is not a LetheFS volume", meaning: "It has no .lethefs/volume.",
                remedy: "lethefs init \(lower)  makes one, in an empty directory")
        case .alreadyVolume:
            self.init(
                .alreadyVolume, "\(lower) is a LetheFS volume already", meaning: "Nothing was changed.",
                remedy: "lethefs mount \(lower) MOUNTPOINT")
        case .notEmpty:
            self.init(
                .alreadyVolume, "\(lower) is not empty",
                meaning: "Nothing was changed. A volume needs a directory of its own.",
                remedy: "make an empty directory, and copy the files in through the mount")
        case .noUserAttributes:
            self.init(
                .storage, "the file system of \(lower) has no extended attributes of the kind user",
                meaning: "--integrity names keeps in them which names a file has. Nothing was made.",
                remedy: "use ext4 or XFS, or NFS that passes them on (Linux 5.9); or leave --integrity names out")
        case .locked(let holder):
            self.init(
                .inUse, "\(lower) is mounted already\(holder.isEmpty ? "" : " (\(holder))")",
                meaning: "Two daemons on one lower directory would spoil each other's data, so this one stops here.",
                remedy: "lethefs status  shows the mounts of this host")
        case .format(let format, let file): self.init(format, file)
        case .keyring(let keyring): self.init(keyring, lower: lower)
        case .notAuthentic(let file):
            self.init(
                .notAuthentic, "\(lower)/.lethefs/\(file) is not authentic",
                meaning:
                    "It was changed by someone without the volume's keys, or belongs to another volume. Nothing is served.",
                remedy: "restore .lethefs from a backup of this volume, then  lethefs check \(lower)")
        case .missing(let file):
            self.init(
                .notAuthentic, "\(lower)/.lethefs/\(file) is missing",
                meaning: "The volume cannot be opened without it; the files themselves are untouched.",
                remedy: "restore .lethefs from a backup of this volume")
        case .manifest(let path, let reason):
            self.init(
                .notAuthentic, "the manifest \(path) of \(lower) \(reason)",
                meaning: "Files that were put back to an earlier time could not be told without it. Nothing is served.",
                remedy:
                    "put it back; or begin a new one from the files as they are:  lethefs check \(lower) --accept-restore"
            )
        case .lostFlush:
            self.init(
                .storage, "a flush of the lower storage has failed since \(lower) was mounted",
                meaning:
                    "What was written before may be lost although it can still be read. So no key is let go: nothing is rotated, retired or shredded.",
                remedy:
                    "unmount the volume and its lower file system, mend that, and mount both again; then  lethefs check \(lower), and repeat the command"
            )
        case .stillProtects(let version, let count, let paths):
            self.init(
                .stillNeeded, "KEK v\(version.rawValue) still protects \(count) files and directories of \(lower)",
                meaning: "It stays as it is. The first ones:\n    " + paths.joined(separator: "\n    "),
                remedy: "lethefs kek rotate \(lower)  wraps them by the newest version; then retire this one")
        case .rewrapPending:
            self.init(
                .stillNeeded, "not everything in \(lower) is wrapped by the newest KEK version yet",
                meaning: "It stays as it is: as long as that goes on, something may need it that was not counted.",
                remedy: "reencrypt --status  shows what is left; repeat the command when that is done")
        case .unguarded(let version):
            self.init(
                .invalid, "KEK v\(version.rawValue) of \(lower) was wrapped without a version key",
                meaning:
                    "Old copies of the keyring would open it under the CMK, so that shredding would prove nothing. Nothing was deleted.",
                remedy:
                    "use a token that generates AES keys for a new volume; or rotate the CMK, and destroy the old one in its token"
            )
        case .notDestroyed(let version):
            self.init(
                .rootFailed, "KEK v\(version.rawValue) is destroyed in the keyring, but a trial did not show it",
                meaning: "An old copy of the keyring may still open it, so there is no certificate yet.",
                remedy:
                    "see that the token answers, and all its nodes; a mounted volume tries again by itself, and keeps the certificate"
            )
        case .incomplete(let failed, let texts):
            self.init(
                .unfinished, "\(failed) objects of \(lower) could not be done",
                meaning: "Everything else was; old keys stay, so nothing is lost. The first ones:\n    "
                    + texts.joined(separator: "\n    "),
                remedy: "lethefs check  names what is damaged; then repeat the command")
        case .shredding(let zone):
            self.init(
                .inUse, "files are being deleted in zone \(zone.rawValue) to be shredded",
                meaning: "A zone that came in between would escape. Nothing was changed.",
                remedy:
                    "wait for it; where it was given up, repeat that lethefs shred, or unmount and mount: either ends it"
            )
        case .unassignable(let reason): self.init(reason)
        case .tooManyZones:
            self.init(.invalid, "the volume has as many zones as it may", meaning: "Nothing was changed.")
        case .lower(let errno, let doing):
            if errno == .readOnly {
                self.init(
                    .storage, "\(lower) is on a read-only file system", meaning: "Nothing was changed.",
                    remedy: "lethefs mount \(lower) MOUNTPOINT -o ro")
            } else {
                self.init(
                    .storage, "\(doing): \(errno.message)",
                    meaning: "The lower storage refused.",
                    remedy: errno == .access ? "run it as the owner of \(lower), or as root" : nil)
            }
        case .cipher:
            self.init(
                .internalError, "OpenSSL lacks an algorithm or failed",
                meaning:
                    "AES-256-GCM, AES-256-WRAP(-PAD), HMAC, HKDF and SHA-256 are needed under the demanded properties.",
                remedy: "check LETHEFS_OPENSSL_PROPERTIES and openssl list -providers")
        }
    }

    private init(_ reason: VolumeMount.Unassignable) {
        let untouched = "Nothing was changed."
        switch reason {
        case .volumeRoot:
            self.init(
                .invalid, "the root of the volume cannot go to another zone", meaning: untouched,
                remedy: "zone 0 is its zone; assign a directory in it")
        case .notDirectory:
            self.init(.invalid, "only a directory, with all below it, can go to another zone", meaning: untouched)
        case .sameZone: self.init(.invalid, "the directory belongs to that zone already", meaning: untouched)
        case .underWay:
            self.init(
                .inUse, "a tree is on its way to another zone already", meaning: "One goes at a time. " + untouched,
                remedy: "wait for it; lethefs reencrypt --status  shows it")
        case .shredding:
            self.init(
                .inUse, "a shredding is under way in one of the two zones", meaning: untouched,
                remedy: "wait for it; lethefs status  shows it")
        case .namesOutside(let count, let paths):
            self.init(
                .invalid,
                "\(count) files have names outside of the directory as well, or are symbolic links with several names",
                meaning: "A file belongs to one zone. \(untouched) The first ones:\n    "
                    + paths.joined(separator: "\n    "),
                remedy: "remove the other names, or copy the files, and repeat the command")
        }
    }

    init(_ error: AuditError) {
        switch error {
        case .lower(let errno, let doing):
            self.init(
                .storage, "\(doing): \(errno.message)", meaning: "The lower storage refused.",
                remedy: errno == .access ? "run it as the owner of the lower directory, or as root" : nil)
        case .missing:
            self.init(
                .auditMissing, "the volume has no audit log",
                meaning: "It was made by a version without one and not mounted since, or the log was removed.",
                remedy: "lethefs mount  begins one")
        case .busy:
            self.init(
                .inUse, "another process appends to the audit log", meaning: "Two would spoil its order.",
                remedy: "lethefs status  shows the mounts of this host")
        case .cipher: self.init(.cipher, lower: "")
        }
    }

    private init(_ error: FormatError, _ file: String) {
        switch error.code {
        case .unknownVersion, .unknownFeature:
            self.init(
                .unknownFormat,
                "the volume's \(error.object) (.lethefs/\(file)) has a format that this program does not know",
                meaning: "A newer or older LetheFS wrote it. Nothing was changed.",
                remedy: "use the version that wrote it")
        default:
            self.init(
                .notAuthentic, "the volume's \(error.object) (.lethefs/\(file)) is damaged: \(error.code.rawValue)",
                meaning: "The volume cannot be opened without it; the files themselves are untouched.",
                remedy: "restore .lethefs from a backup of this volume")
        }
    }

    init(_ error: KeyringError, lower: String) {
        switch error {
        case .root(let root, let uri): self.init(root, uri: uri)
        case .notAuthentic:
            self.init(
                .notAuthentic, "the keyring of \(lower) is not authentic",
                meaning: "It was changed, or belongs to another volume. Nothing is served.",
                remedy: "restore .lethefs/zones from a backup of this volume")
        case .format(let format): self.init(format, "zones/0")
        case .noUsableKEK:
            self.init(
                .keyNotFound, "the keyring of \(lower) holds no key that may still decrypt",
                meaning: "All its KEKs are destroyed: the data cannot be read any more.")
        case .inUse:
            self.init(
                .invalid, "this KEK version is active, destroyed already, or unknown",
                remedy: "lethefs status \(lower)  lists the versions; lethefs kek rotate  makes a new active one")
        case .full:
            self.init(
                .invalid, "the keyring of \(lower) has no room for another key",
                remedy: "lethefs coverage \(lower)  says which versions can be retired")
        case .cipher: self.init(.internalError, "OpenSSL failed while the keyring was opened")
        }
    }

    /// Of a CMK and its owner.
    init(_ error: RootError, uri: String) {
        let at = "\n  CMK: \(uri)\n  answer: \(error.detail)"
        let kept = "The data is intact, and cannot be read until the CMK answers."
        switch error.code {
        case .invalidURI:
            self.init(.invalid, "not a root URI: \(error.detail)", remedy: "docs/COMMANDS.md has examples")
        case .moduleUnavailable:
            self.init(
                .module, "the PKCS#11 module cannot be used\(at)", meaning: kept,
                remedy: "install it, or correct module-path in the URI (--root)")
        case .tokenNotFound:
            self.init(
                .keyNotFound, "the token is not there\(at)", meaning: kept, remedy: "plug it in, or correct --root")
        case .keyNotFound, .destroyed:
            self.init(
                .keyNotFound, "the token holds no such CMK\(at)",
                meaning: "If it was destroyed, the data is gone for good; if it lives elsewhere, it is intact.",
                remedy: "correct --root, or restore the CMK from the HSM's own backup")
        case .unknownRoot:
            self.init(
                .keyNotFound, "this host does not know the CMK\(at)",
                meaning:
                    "Its owner was not asked. Nothing that takes the CMK is opened, and no key beside it is destroyed.",
                remedy:
                    "mount with --root 'URI' for each of the volume's CMKs, former ones too; lethefs status  lists them"
            )
        case .versionDestroyed:
            self.init(
                .keyNotFound, "the token's version key of this KEK version is destroyed\(at)",
                meaning:
                    "This copy of the keyring is older than a retirement or a shredding, and opens nothing any more.",
                remedy: "use the volume as it is now, not an old copy of it")
        case .keyAmbiguous:
            self.init(.keyNotFound, "several keys match\(at)", meaning: kept, remedy: "add id= to the URI")
        case .pinIncorrect:
            self.init(
                .pin, "the token refuses the PIN\(at)", meaning: "It was tried once. " + kept,
                remedy: "correct the file that pin-source names")
        case .pinLocked:
            self.init(
                .pin, "the token's PIN is locked\(at)", meaning: kept,
                remedy: "unlock it with the security officer's PIN")
        case .pinUnavailable:
            self.init(
                .pin, "there is no PIN for the token\(at)", meaning: kept,
                remedy: "add pin-source=FILE (mode 0600) to the URI")
        case .disabled, .pendingDeletion:
            self.init(.keyRefused, "the CMK is switched off\(at)", meaning: kept, remedy: "enable it at its owner")
        case .denied:
            self.init(
                .keyRefused, "the CMK's owner refuses\(at)", meaning: kept,
                remedy: "have the owner permit encryption and decryption with it")
        case .notAuthentic:
            self.init(
                .notAuthentic, "the CMK did not wrap this volume's KEK, or the keyring was changed\(at)",
                meaning: "Nothing is served.",
                remedy: "name the right CMK with --root, or restore .lethefs from a backup")
        case .throttled, .unreachable, .timedOut:
            self.init(
                .rootUnreachable, "the CMK's owner cannot be reached\(at)", meaning: kept,
                remedy: "try again when it answers")
        case .unsupported:
            self.init(
                .rootFailed, "the token cannot do this\(at)", meaning: kept,
                remedy: "name a key or a token that can: docs/COMMANDS.md says what is needed")
        case .failed:
            self.init(
                .rootFailed, "the token failed\(at)", meaning: kept,
                remedy: "its own tools or log may say more; then try again")
        }
    }
}
