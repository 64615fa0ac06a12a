#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "CFuse.h"

#include <errno.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static _Thread_local unsigned request_flags;
static _Thread_local int has_own_fs_context;
// `unique` of the INIT request while its reply is awaited and may be given FUSE_HANDLE_KILLPRIV_V2; 0 otherwise.
static _Atomic uint64_t init_unique;

unsigned lethefs_request_flags(void) { return request_flags; }

static void note_request(const void *buffer, size_t length) {
    const struct fuse_in_header *header = buffer;
    const void *body = header + 1;
    size_t body_length = length - sizeof *header;
    switch (header->opcode) {
    case FUSE_INIT: {
        const struct fuse_init_in *init = body;
        if (body_length >= 16 && (init->flags & FUSE_HANDLE_KILLPRIV_V2)) atomic_store(&init_unique, header->unique);
        break;
    }
    case FUSE_WRITE: {
        const struct fuse_write_in *write = body;
        if (body_length >= sizeof *write && (write->write_flags & FUSE_WRITE_KILL_SUIDGID)) request_flags = LETHEFS_KILL_SUIDGID;
        break;
    }
    case FUSE_SETATTR: {
        const struct fuse_setattr_in *setattr = body;
        if (body_length >= sizeof *setattr && (setattr->valid & FATTR_KILL_SUIDGID)) request_flags = LETHEFS_KILL_SUIDGID;
        break;
    }
    case FUSE_OPEN: {
        const struct fuse_open_in *open = body;
        if (body_length >= sizeof *open && (open->open_flags & FUSE_OPEN_KILL_SUIDGID)) request_flags = LETHEFS_KILL_SUIDGID;
        break;
    }
    case FUSE_CREATE: {
        const struct fuse_create_in *create = body;
        if (body_length >= sizeof *create && (create->open_flags & FUSE_OPEN_KILL_SUIDGID)) request_flags = LETHEFS_KILL_SUIDGID;
        break;
    }
    default: break;
    }
}

static ssize_t read_request(int fd, void *buffer, size_t length, void *userdata) {
    (void)userdata;
    ssize_t count = read(fd, buffer, length);
    request_flags = 0;
    if (count >= (ssize_t)sizeof(struct fuse_in_header)) note_request(buffer, (size_t)count);
    return count;
}

static ssize_t write_reply(int fd, struct iovec *iov, int count, void *userdata) {
    (void)userdata;
    const struct fuse_out_header *header = iov[0].iov_base;
    uint64_t expected = atomic_load_explicit(&init_unique, memory_order_relaxed);
    if (expected != 0 && header->unique == expected) {
        if (header->error == 0 && count == 2 && iov[1].iov_len >= 24)
            ((struct fuse_init_out *)iov[1].iov_base)->flags |= FUSE_HANDLE_KILLPRIV_V2;
        atomic_store(&init_unique, 0);
    }
    return writev(fd, iov, count);
}

int lethefs_install_io(struct fuse_session *session) {
    static const struct fuse_custom_io io = {.writev = write_reply, .read = read_request};
    return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

int lethefs_notify_increment_epoch(struct fuse_session *session) {
    // FUSE_NOTIFY_INC_EPOCH of <linux/fuse.h>, which Debian's headers do not have yet.
    struct fuse_out_header header = {.len = sizeof header, .error = 8, .unique = 0};
    return write(fuse_session_fd(session), &header, sizeof header) == sizeof header ? 0 : -errno;
}

void lethefs_set_thread_umask(mode_t mask) {
    if (!has_own_fs_context) {
        // Without it umask(2) would be the whole process's.
        if (unshare(CLONE_FS) != 0) return;
        has_own_fs_context = 1;
    }
    umask(mask);
}

int lethefs_session_loop(struct fuse_session *session, unsigned threads) {
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    if (config == NULL) return -ENOMEM;
    fuse_loop_cfg_set_clone_fd(config, 1);
    fuse_loop_cfg_set_max_threads(config, threads);
    fuse_loop_cfg_set_idle_threads(config, threads);
    int result = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    return result;
}
