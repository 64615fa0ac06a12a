// The threads that serve /dev/fuse.
//
// Each has a clone of the descriptor, so that requests in service are found by thread, and answers on the thread that read the request. Few
// wait: which one the kernel wakes goes round, and those that were not woken for long have cold caches. When the last one that waits takes a
// request, another comes, unless one has answered and is about to wait again, or as many serve as there are processors: more would be in each
// other's way. Those that wait for a disk, or for one another, do not count. A monitor has others come where that was decided wrongly.
#pragma once
#include <stddef.h>
#include <sys/types.h>

struct fuse_session;
struct iovec;

/// Serves until the session is over; `room`: bytes of the longest request. Signals end it by way of the calling thread. Returns 0, or a
/// negative errno.
int lethefs_workers_run(struct fuse_session *session, unsigned highest, size_t room);

/// Sends the reply to the request that this thread is serving. Returns as writev(2), or -2 when this thread is no worker.
ssize_t lethefs_workers_reply(const struct iovec *iov, int count);

/// Zeroes what the workers' requests lay in; those that are busy do so when they have answered. 0, or -ETIMEDOUT after two seconds.
int lethefs_workers_wipe(void);
