import CFuse
import CLinux
import Storage

/// A request on its way to its one reply. A reply consumes it; one that is dropped unanswered answers EIO.
struct FuseRequest: ~Copyable {
    private let raw: fuse_req_t

    init(_ raw: fuse_req_t) { self.raw = raw }

    /// For libfuse's directory-entry helpers.
    var pointer: fuse_req_t { raw }

    /// The calling program.
    var context: fuse_ctx { fuse_req_ctx(raw).pointee }

    /// The calling program's supplementary groups; none where /proc does not tell.
    var groups: [gid_t] {
        var found = [gid_t](repeating: 0, count: 64)
        var count = fuse_req_getgroups(raw, Int32(found.count), &found)
        if count > found.count {
            found = [gid_t](repeating: 0, count: Int(count))
            count = fuse_req_getgroups(raw, count, &found)
        }
        return Array(found.prefix(max(0, min(Int(count), found.count))))
    }

    consuming func reply(_ error: Errno) {
        fuse_reply_err(raw, error.rawValue)
        discard self
    }

    consuming func replyOK() {
        fuse_reply_err(raw, 0)
        discard self
    }

    /// FORGET has no reply.
    consuming func replyNothing() {
        fuse_reply_none(raw)
        discard self
    }

    consuming func reply(entry: inout fuse_entry_param) {
        fuse_reply_entry(raw, &entry)
        discard self
    }

    consuming func reply(attributes: inout stat, timeout: Double) {
        fuse_reply_attr(raw, &attributes, timeout)
        discard self
    }

    consuming func reply(entry: inout fuse_entry_param, file: inout fuse_file_info) -> Bool {
        let sent = fuse_reply_create(raw, &entry, &file) == 0
        discard self
        return sent
    }

    consuming func reply(open file: inout fuse_file_info) -> Bool {
        let sent = fuse_reply_open(raw, &file) == 0
        discard self
        return sent
    }

    consuming func reply(bytes: UnsafeRawBufferPointer) {
        fuse_reply_buf(raw, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
        discard self
    }

    consuming func reply(bytes: [UInt8]) {
        _ = bytes.withUnsafeBytes { fuse_reply_buf(raw, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count) }
        discard self
    }

    consuming func reply(written count: Int) {
        fuse_reply_write(raw, count)
        discard self
    }

    consuming func reply(attributeSize count: Int) {
        fuse_reply_xattr(raw, count)
        discard self
    }

    consuming func reply(statistics: inout statvfs) {
        fuse_reply_statfs(raw, &statistics)
        discard self
    }

    consuming func reply(link: [CChar]) {
        fuse_reply_readlink(raw, link)
        discard self
    }

    deinit { fuse_reply_err(raw, EIO) }
}
