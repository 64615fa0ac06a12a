// One io_uring of a few entries, by raw system calls, used by one thread.
#pragma once
#include "RingProtocol.h"

#include <linux/io_uring.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct lethefs_ring_io {
    int fd;
    void *queues, *entries;
    size_t queues_size, entries_size;
    _Atomic uint32_t *sq_head, *sq_tail, *cq_head, *cq_tail;
    uint32_t sq_mask, cq_mask;
    uint32_t *sq_array;
    struct io_uring_cqe *completions;
    uint32_t pending;
};

struct lethefs_completion {
    uint64_t of;
    int32_t result;
};

/// CPUs that the kernel has queues for, or a negative errno.
int lethefs_possible_cpus(void);

/// 0 when this process can make such rings, otherwise a negative errno.
int lethefs_ring_io_probe(void);

/// Makes a ring with 128-byte entries, disabled, with `fuse_fd` as its registered file 0. 0 or a negative errno; `close` in either case.
int lethefs_ring_io_make(struct lethefs_ring_io *io, int fuse_fd);

/// The calling thread is the one that uses it.
int lethefs_ring_io_enable(struct lethefs_ring_io *io);

/// Queues a command to registered file 0.
void lethefs_ring_io_command(struct lethefs_ring_io *io, uint32_t operation, const struct fuse_uring_cmd_req *command,
                             const struct iovec areas[2], uint64_t of);

/// Queues a wait for a descriptor to be readable.
void lethefs_ring_io_poll(struct lethefs_ring_io *io, int fd, uint64_t of);

/// Submits what is queued, and waits for a completion. A negative errno when the ring cannot be used any more.
int lethefs_ring_io_wait(struct lethefs_ring_io *io);

/// Submits what is queued.
int lethefs_ring_io_submit(struct lethefs_ring_io *io);

/// True when there is no completion.
int lethefs_ring_io_is_empty(const struct lethefs_ring_io *io);

/// Takes the next completion; 0 when there is none.
int lethefs_ring_io_next(struct lethefs_ring_io *io, struct lethefs_completion *completion);

void lethefs_ring_io_close(struct lethefs_ring_io *io);
