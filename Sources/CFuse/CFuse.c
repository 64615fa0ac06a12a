#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "CFuse.h"
#include "Ring.h"
#include "RingProtocol.h"
#include "Threads.h"
#include "Workers.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

// More than the headers before what FUSE_WRITE carries.
enum { REQUEST_HEAD = 4096 };
#define LONGEST_UNMOUNT_NS 2000000000LL

static _Thread_local unsigned request_flags;
static _Thread_local int has_own_fs_context;
static _Thread_local mode_t own_umask;
// `unique` of the INIT request while its reply is awaited; 0 otherwise.
static _Atomic uint64_t init_unique;
// The kernel offers FUSE_HANDLE_KILLPRIV_V2.
static _Atomic int kills_privileges;
static struct fuse_session *own_session;
// Written while INIT is served, before any other request, and by nobody else afterwards.
static _Atomic int ring_wanted, ring_offered, transport_reason, transport_error;

unsigned lethefs_request_flags(void) { return request_flags; }

void lethefs_note_request(const void *buffer, size_t length) {
    const struct fuse_in_header *header = buffer;
    request_flags = 0;
    const void *body = header + 1;
    size_t body_length = length - sizeof *header;
    switch (header->opcode) {
    case FUSE_INIT: {
        const struct fuse_init_in *init = body;
        kills_privileges = body_length >= 16 && (init->flags & FUSE_HANDLE_KILLPRIV_V2);
        atomic_store(&init_unique, header->unique);
        ring_offered = body_length >= 20 && (init->flags & FUSE_INIT_EXT) && (init->flags2 & LETHEFS_FUSE_OVER_IO_URING);
        break;
    }
    case FUSE_WRITE: {
        const struct fuse_write_in *write = body;
        if (body_length >= sizeof *write && (write->write_flags & FUSE_WRITE_KILL_SUIDGID)) request_flags = LETHEFS_KILL_SUIDGID;
        break;
    }
    case FUSE_SETATTR: {
        const struct fuse_setattr_in *setattr = body;
        if (body_length < sizeof *setattr) break;
        // One that sets nothing is how the kernel announces a write, fallocate or copy_file_range by a program that may not keep those bits:
        // the latter two have no flag of their own, and the reply tells the kernel the new mode.
        int is_empty = (setattr->valid & ~(unsigned)(FATTR_FH | FATTR_LOCKOWNER)) == 0;
        if (is_empty || (setattr->valid & FATTR_KILL_SUIDGID)) request_flags = LETHEFS_KILL_SUIDGID;
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
    if (count >= (ssize_t)sizeof(struct fuse_in_header)) lethefs_note_request(buffer, (size_t)count);
    return count;
}

// Bytes of the longest request, from what INIT agreed on.
static size_t request_room = FUSE_MIN_READ_BUFFER;

// INIT has been answered: from then on it is known which loop serves.
static _Atomic int settled;
static int transport_is_settled(void) { return settled; }

static void keep_classic(int reason, int error) {
    transport_reason = reason;
    transport_error = error;
}

// Takes FUSE over io_uring in the INIT reply, once everything is there that it needs: the kernel does not go back.
static void offer_ring(struct fuse_init_out *init) {
    if (!ring_wanted) return;
    if (!ring_offered) return keep_classic(LETHEFS_RING_NOT_OFFERED, 0);
    size_t payload = (size_t)init->max_pages * 4096;
    if (payload < init->max_write) payload = init->max_write;
    if (payload < FUSE_MIN_READ_BUFFER) payload = FUSE_MIN_READ_BUFFER;
    int result = lethefs_ring_prepare(own_session, fuse_session_fd(own_session), payload);
    if (result != 0) return keep_classic(LETHEFS_RING_SETUP_FAILED, -result);
    init->flags |= FUSE_INIT_EXT;
    init->flags2 |= LETHEFS_FUSE_OVER_IO_URING;
}

int lethefs_transport_descriptors(unsigned threads) {
    int rings = lethefs_ring_descriptors();
    return rings > 0 ? rings : (int)threads + 1;
}

static ssize_t write_init_reply(int fd, struct iovec *iov, int count) {
    const struct fuse_out_header *header = iov[0].iov_base;
    if (header->error == 0 && count == 2 && iov[1].iov_len >= 24) {
        struct fuse_init_out *init = iov[1].iov_base;
        if (kills_privileges) init->flags |= FUSE_HANDLE_KILLPRIV_V2;
        if (init->max_write + REQUEST_HEAD > request_room) request_room = init->max_write + REQUEST_HEAD;
        if (iov[1].iov_len >= sizeof *init) offer_ring(init);
    }
    atomic_store(&init_unique, 0);
    ssize_t written = writev(fd, iov, count);
    settled = 1;
    if (!lethefs_ring_is_prepared()) return written;
    if (written > 0) {
        transport_reason = LETHEFS_RING_USED;
        lethefs_ring_start();
    } else {
        keep_classic(LETHEFS_RING_SETUP_FAILED, errno);
        lethefs_ring_stop();
    }
    return written;
}

static ssize_t write_reply(int fd, struct iovec *iov, int count, void *userdata) {
    (void)userdata;
    const struct fuse_out_header *header = iov[0].iov_base;
    ssize_t taken = lethefs_ring_reply(iov, count);
    if (taken != -1) return taken;
    uint64_t expected = atomic_load_explicit(&init_unique, memory_order_relaxed);
    if (expected != 0 && header->unique == expected) return write_init_reply(fd, iov, count);
    if (header->unique != 0) {
        taken = lethefs_workers_reply(iov, count);
        if (taken != -2) return taken;
    }
    return writev(fd, iov, count);
}

int lethefs_install_io(struct fuse_session *session, int wants_ring) {
    static const struct fuse_custom_io io = {.writev = write_reply, .read = read_request};
    own_session = session;
    int error = 0, reason = wants_ring ? lethefs_ring_probe(&error) : LETHEFS_RING_NOT_WANTED;
    ring_wanted = reason == LETHEFS_RING_USED;
    keep_classic(ring_wanted ? LETHEFS_RING_NOT_OFFERED : reason, error);
    return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

int lethefs_wipe_requests(void) {
    int ring = lethefs_ring_wipe(), workers = lethefs_workers_wipe();
    return ring != 0 ? ring : workers;
}

int lethefs_transport(int *error) {
    *error = transport_error;
    return transport_reason;
}

int lethefs_notify_increment_epoch(struct fuse_session *session) { return lethefs_device_expire_names(fuse_session_fd(session)); }

static int invalidate(int device, uint64_t node, int64_t offset) {
    struct {
        struct fuse_out_header header;
        struct fuse_notify_inval_inode_out body;
    } message = {{sizeof message, FUSE_NOTIFY_INVAL_INODE, 0}, {node, offset, 0}};
    return write(device, &message, sizeof message) == sizeof message ? 0 : -errno;
}

int lethefs_device_purge(int device, uint64_t node) { return invalidate(device, node, 0); }

// A negative offset: the attributes alone.
int lethefs_device_knows(int device, uint64_t node) { return invalidate(device, node, -1); }

int lethefs_device_expire_names(int device) {
    // FUSE_NOTIFY_INC_EPOCH of <linux/fuse.h>, which Debian's headers do not have yet.
    struct fuse_out_header header = {.len = sizeof header, .error = 8, .unique = 0};
    return write(device, &header, sizeof header) == sizeof header ? 0 : -errno;
}

void lethefs_raise_priority(void) { setpriority(PRIO_PROCESS, 0, -20); }

int lethefs_device_refuse(int device, void *buffer, size_t length) {
    ssize_t count = read(device, buffer, length);
    if (count < 0) return -errno;
    if (count < (ssize_t)sizeof(struct fuse_in_header)) return -EIO;
    const struct fuse_in_header *request = buffer;
    // These have no answer.
    if (request->opcode == FUSE_FORGET || request->opcode == FUSE_BATCH_FORGET || request->opcode == FUSE_INTERRUPT) return 0;
    struct fuse_out_header reply = {.len = sizeof reply, .error = -ENOTCONN, .unique = request->unique};
    // A request that was interrupted meanwhile is gone: no error.
    return write(device, &reply, sizeof reply) == sizeof reply || errno == ENOENT ? 0 : -errno;
}

void lethefs_set_thread_umask(mode_t mask) {
    // Most programs have the same; asking the kernel each time costs a call.
    if (has_own_fs_context && mask == own_umask) return;
    if (!has_own_fs_context) {
        // Without it umask(2) would be the whole process's.
        if (unshare(CLONE_FS) != 0) return;
        has_own_fs_context = 1;
    }
    umask(mask);
    own_umask = mask;
}

// Serves /dev/fuse on this thread: until INIT is answered, or for as long as the lanes do the rest. A signal interrupts poll(2), or is
// noticed after a second at the latest.
static int receive(struct fuse_session *session, int until_init) {
    struct fuse_buf buffer = {0};
    int result = 0;
    long long failed = 0;
    while (!fuse_session_exited(session)) {
        // Negative descriptors are left out by poll(2).
        struct pollfd waited[2] = {
            {.fd = fuse_session_fd(session), .events = POLLIN},
            {.fd = lethefs_ring_is_prepared() && failed == 0 ? lethefs_ring_failure_fd() : -1, .events = POLLIN}};
        int ready = poll(waited, 2, 1000);
        // The last lane of a queue has gone. That is an unmount under way, or nobody would serve that CPU's programs any more.
        if (ready > 0 && waited[1].revents != 0) failed = lethefs_now();
        if (failed != 0 && lethefs_now() - failed > LONGEST_UNMOUNT_NS) {
            result = -EIO;
            break;
        }
        if (ready <= 0 || waited[0].revents == 0) continue;
        result = fuse_session_receive_buf(session, &buffer);
        if (result == -EINTR || result == -EAGAIN) {
            result = 0;
            continue;
        }
        if (result <= 0) break;
        fuse_session_process_buf(session, &buffer);
        result = 0;
        if (until_init && transport_is_settled()) break;
    }
    free(buffer.mem);
    return result;
}

int lethefs_session_begin(struct fuse_session *session) { return receive(session, 1); }

int lethefs_session_loop(struct fuse_session *session, unsigned threads) {
    int result = 0;
    if (!fuse_session_exited(session))
        result = lethefs_ring_is_prepared() ? receive(session, 0) : lethefs_workers_run(session, threads, request_room);
    fuse_session_exit(session);
    lethefs_ring_stop();
    return result;
}
