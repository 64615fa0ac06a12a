import CFuse
import CLinux
import Storage
import VolumeEngine

/// Who sets an access ACL: the kernel leaves it to the file system to take the set-group-ID bit from a file whose group is not one of that
/// program's (posix_acl_update_mode of Linux; CVE-2016-7097).
struct ACLSetter {
    private let context: fuse_ctx
    private let groups: [gid_t]

    /// `nil` for other attributes, and for root, who may keep the bit: groups are read from /proc.
    init?(_ request: borrowing FuseRequest, _ name: UnsafePointer<CChar>) {
        guard request.context.uid != 0, strcmp(name, "system.posix_acl_access") == 0 else { return nil }
        context = request.context
        groups = request.groups
    }

    func clearSetGID(of inode: Inode, _ volume: Volume) throws(Errno) {
        let attributes = try volume.attributes(inode)
        guard attributes.st_mode & mode_t(S_ISGID) != 0, attributes.st_gid != context.gid,
            !groups.contains(attributes.st_gid)
        else { return }
        var changes = AttributeChanges()
        changes.mode = attributes.st_mode & 0o7777 & ~mode_t(S_ISGID)
        _ = try volume.setAttributes(inode, changes)
    }
}
