#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "RingIO.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ENTRIES = 4, ENTRY_SIZE = 128 };

int lethefs_possible_cpus(void) {
    FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
    if (file == NULL) return -errno;
    // "0" or "0-7". Of a list with holes the kernel has fewer queues than numbers, and would refuse the highest after INIT.
    int first = -1, last = -1;
    char separator = '\n', end = '\n';
    int found = fscanf(file, "%d%c%d%c", &first, &separator, &last, &end);
    fclose(file);
    if (first != 0 || end != '\n') return -EINVAL;
    if (found <= 2) return separator == '\n' ? 1 : -EINVAL;
    return separator == '-' && last >= 0 ? last + 1 : -EINVAL;
}

static int map_queues(struct lethefs_ring_io *io, const struct io_uring_params *p) {
    size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
    size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    io->queues_size = sq > cq ? sq : cq;
    io->entries_size = (size_t)p->sq_entries * ENTRY_SIZE;
    unsigned char *queues =
        mmap(NULL, io->queues_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, io->fd, IORING_OFF_SQ_RING);
    if (queues == MAP_FAILED) return -errno;
    io->queues = queues;
    void *entries =
        mmap(NULL, io->entries_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, io->fd, IORING_OFF_SQES);
    if (entries == MAP_FAILED) return -errno;
    io->entries = entries;
    io->sq_head = (_Atomic uint32_t *)(queues + p->sq_off.head);
    io->sq_tail = (_Atomic uint32_t *)(queues + p->sq_off.tail);
    io->cq_head = (_Atomic uint32_t *)(queues + p->cq_off.head);
    io->cq_tail = (_Atomic uint32_t *)(queues + p->cq_off.tail);
    io->sq_mask = *(uint32_t *)(queues + p->sq_off.ring_mask);
    io->cq_mask = *(uint32_t *)(queues + p->cq_off.ring_mask);
    io->sq_array = (uint32_t *)(queues + p->sq_off.array);
    io->completions = (struct io_uring_cqe *)(queues + p->cq_off.cqes);
    return 0;
}

enum { FLAGS = IORING_SETUP_SQE128 | IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };

int lethefs_ring_io_probe(void) {
    struct io_uring_params p = {.flags = FLAGS};
    int fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
    if (fd < 0) return -errno;
    close(fd);
    return p.features & IORING_FEAT_SINGLE_MMAP ? 0 : -ENOTSUP;
}

int lethefs_ring_io_make(struct lethefs_ring_io *io, int fuse_fd) {
    struct io_uring_params p = {.flags = FLAGS};
    io->queues = io->entries = NULL;
    io->pending = 0;
    io->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
    if (io->fd < 0) return -errno;
    if (!(p.features & IORING_FEAT_SINGLE_MMAP)) return -ENOTSUP;
    int result = map_queues(io, &p);
    if (result != 0) return result;
    if (syscall(SYS_io_uring_register, io->fd, IORING_REGISTER_FILES, &fuse_fd, 1) < 0) return -errno;
    return 0;
}

int lethefs_ring_io_enable(struct lethefs_ring_io *io) {
    return syscall(SYS_io_uring_register, io->fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0 ? -errno : 0;
}

// A cleared entry at the tail; `push` hands it over. There is always room: at most three are pending.
static struct io_uring_sqe *entry(struct lethefs_ring_io *io) {
    uint32_t index = atomic_load_explicit(io->sq_tail, memory_order_relaxed) & io->sq_mask;
    struct io_uring_sqe *sqe = (struct io_uring_sqe *)((unsigned char *)io->entries + (size_t)index * ENTRY_SIZE);
    memset(sqe, 0, ENTRY_SIZE);
    io->sq_array[index] = index;
    return sqe;
}

static void push(struct lethefs_ring_io *io) {
    atomic_fetch_add_explicit(io->sq_tail, 1, memory_order_release);
    io->pending++;
}

void lethefs_ring_io_command(struct lethefs_ring_io *io, uint32_t operation, const struct fuse_uring_cmd_req *command,
                             const struct iovec areas[2], uint64_t of) {
    struct io_uring_sqe *sqe = entry(io);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->fd = 0;
    sqe->cmd_op = operation;
    sqe->addr = (uint64_t)(uintptr_t)areas;
    sqe->len = areas != NULL ? 2 : 0;
    sqe->user_data = of;
    memcpy(sqe->cmd, command, sizeof *command);
    push(io);
}

void lethefs_ring_io_poll(struct lethefs_ring_io *io, int fd, uint64_t of) {
    struct io_uring_sqe *sqe = entry(io);
    sqe->opcode = IORING_OP_POLL_ADD;
    sqe->fd = fd;
    sqe->poll32_events = POLLIN;
    sqe->user_data = of;
    push(io);
}

static int enter(struct lethefs_ring_io *io, uint32_t wanted, uint32_t flags) {
    for (;;) {
        long done = syscall(SYS_io_uring_enter, io->fd, io->pending, wanted, flags, NULL, 0);
        if (done >= 0) {
            io->pending -= (uint32_t)done < io->pending ? (uint32_t)done : io->pending;
            return 0;
        }
        if (errno != EINTR && errno != EAGAIN && errno != EBUSY) return -errno;
    }
}

int lethefs_ring_io_wait(struct lethefs_ring_io *io) { return enter(io, 1, IORING_ENTER_GETEVENTS); }

int lethefs_ring_io_submit(struct lethefs_ring_io *io) { return io->pending > 0 ? enter(io, 0, 0) : 0; }

int lethefs_ring_io_is_empty(const struct lethefs_ring_io *io) {
    return atomic_load_explicit(io->cq_head, memory_order_relaxed) == atomic_load_explicit(io->cq_tail, memory_order_acquire);
}

int lethefs_ring_io_next(struct lethefs_ring_io *io, struct lethefs_completion *completion) {
    uint32_t head = atomic_load_explicit(io->cq_head, memory_order_relaxed);
    if (head == atomic_load_explicit(io->cq_tail, memory_order_acquire)) return 0;
    const struct io_uring_cqe *cqe = &io->completions[head & io->cq_mask];
    *completion = (struct lethefs_completion){.of = cqe->user_data, .result = cqe->res};
    atomic_store_explicit(io->cq_head, head + 1, memory_order_release);
    return 1;
}

void lethefs_ring_io_close(struct lethefs_ring_io *io) {
    if (io->entries != NULL) munmap(io->entries, io->entries_size);
    if (io->queues != NULL) munmap(io->queues, io->queues_size);
    if (io->fd >= 0) close(io->fd);
    io->entries = io->queues = NULL;
    io->fd = -1;
}
