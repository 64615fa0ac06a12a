// FUSE over io_uring (Linux 6.14 and later): requests and replies by shared memory, one system call for both.
//
// The kernel has a queue for each possible CPU. Each lane is a thread with an io_uring of one entry in one queue; it serves a request to
// its end and answers on the same thread, with the reply's commit and the wait for the next request in one call. Several lanes a
// queue, because a lane that waits for the disk would hold up its CPU's programs. INIT, FORGET, INTERRUPT and notifications stay on
// /dev/fuse.
#pragma once
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct fuse_session;

/// Makes rings, memory and threads; the threads wait. `payload`: bytes of the longest request or reply. Returns 0 or a negative errno,
/// and then nothing is left of it.
int lethefs_ring_prepare(struct fuse_session *session, int fd, size_t payload);

/// How many descriptors the rings have open; 0 where there are none.
int lethefs_ring_descriptors(void);

/// The INIT reply is on its way to the kernel with FUSE_OVER_IO_URING in it: the threads register their entries.
void lethefs_ring_start(void);

/// True from `prepare` to `stop`.
int lethefs_ring_is_prepared(void);

/// Ends the threads, each after the request that it is serving, and wipes and frees what they had.
void lethefs_ring_stop(void);

/// Readable when some queue has no thread left to serve it: then the session has to end.
int lethefs_ring_failure_fd(void);

/// Takes the reply to the request that this thread is serving. Returns its length, or -1 when it is not one of a lane's.
ssize_t lethefs_ring_reply(const struct iovec *iov, int count);

/// Zeroes the lanes' memory, once each has answered what it has. 0, or -ETIMEDOUT when one is still busy after two seconds.
int lethefs_ring_wipe(void);
