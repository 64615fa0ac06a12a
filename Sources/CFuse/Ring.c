#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "CFuse.h"
#include "Placement.h"
#include "Ring.h"
#include "RingIO.h"
#include "RingProtocol.h"
#include "Threads.h"

#include <CLinux.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { PAGE = 4096, HEAD = PAGE, LEAD = PAGE, SLACK = 2 * PAGE, STACK = 1 << 20, MAX_QUEUES = 4096 };
#define FUSE_CTL_SUPER_MAGIC 0x65735543

// What a completion belongs to.
enum { OF_REQUEST = 1, OF_WAKE = 2 };

struct lane {
    struct lethefs_ring_io io;
    pthread_t thread;
    int has_thread;
    uint16_t queue;
    // HEAD: the kernel's header. LEAD: room before the payload, for headers to stand directly before it, or for plaintext before the
    // first byte asked for. Then the payload, and SLACK after it.
    unsigned char *memory;
    struct iovec areas[2];
    // The request that is being served; 0 when it has been answered.
    uint64_t unique;
    // Payload bytes that have held something since the last wipe, and the length of the reply that is there now.
    size_t touched, replied;
    // Wipes still due: the second one takes what the reply of the first one's time covered.
    int wipes_due;
    int wake_fd;
    _Atomic unsigned wiped;
    _Atomic int gone;
};

// One session a process: a mount is a process.
static struct {
    struct fuse_session *session;
    int fd, failure_fd;
    _Atomic int stopping;
    _Atomic unsigned wipe_wanted;
    size_t payload;
    unsigned queues, lanes_each;
    struct lane *lanes;
    struct lethefs_placement *places;  // By queue.
    _Atomic int *alive;  // Lanes that serve, by queue.
    pthread_mutex_t gate;
    pthread_cond_t opened;
    enum { WAITING, GO, NO_GO } state;
} ring = {.gate = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER};

static _Thread_local struct lane *own_lane;

static struct fuse_uring_req_header *header(struct lane *lane) { return (struct fuse_uring_req_header *)lane->memory; }
static unsigned char *payload(struct lane *lane) { return lane->memory + HEAD + LEAD; }
static size_t memory_size(void) { return HEAD + LEAD + ring.payload + SLACK; }

int lethefs_ring_probe(int *error) {
    *error = 0;
    int fd = open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return LETHEFS_RING_NOT_KNOWN;
    char value = 'N';
    ssize_t count = read(fd, &value, 1);
    close(fd);
    if (count != 1 || value != 'Y') return LETHEFS_RING_SWITCHED_OFF;
    struct statfs control;
    if (statfs("/sys/fs/fuse/connections", &control) != 0 || control.f_type != FUSE_CTL_SUPER_MAGIC)
        return LETHEFS_RING_NO_FUSECTL;
    int result = lethefs_ring_io_probe();
    *error = -result;
    return result == 0 ? LETHEFS_RING_USED : LETHEFS_RING_NO_IO_URING;
}

int lethefs_ring_is_prepared(void) { return ring.lanes != NULL; }
int lethefs_ring_failure_fd(void) { return ring.failure_fd; }

void *lethefs_reply_space(size_t wanted) {
    struct lane *lane = own_lane;
    if (lane == NULL || lane->unique == 0 || wanted > ring.payload) return NULL;
    // Whatever becomes of the request: what was begun in it is wiped with the rest.
    if (wanted > lane->touched) lane->touched = wanted;
    return payload(lane);
}

ssize_t lethefs_ring_reply(const struct iovec *iov, int count) {
    struct lane *lane = own_lane;
    const struct fuse_out_header *out = iov[0].iov_base;
    if (lane == NULL || lane->unique == 0 || out->unique != lane->unique || iov[0].iov_len != sizeof *out) return -1;
    size_t length = 0;
    for (int index = 1; index < count; index++) {
        if (iov[index].iov_len > ring.payload - length) return -EINVAL;
        unsigned char *place = payload(lane) + length;
        // What was put together in its place already is not copied.
        if (iov[index].iov_base != place) memmove(place, iov[index].iov_base, iov[index].iov_len);
        length += iov[index].iov_len;
    }
    lane->replied = length;
    if (length > lane->touched) lane->touched = length;
    memcpy(header(lane)->in_out, out, sizeof *out);
    header(lane)->ring_ent_in_out.payload_sz = (uint32_t)length;
    lane->unique = 0;
    return (ssize_t)(sizeof *out + length);
}

static void answer_error(struct lane *lane, int error) {
    struct fuse_out_header out = {.len = sizeof out, .error = -error, .unique = lane->unique};
    struct iovec iov = {&out, sizeof out};
    lethefs_ring_reply(&iov, 1);
}

// Puts the message together in front of its payload, and has libfuse serve it.
static void serve_request(struct lane *lane) {
    struct fuse_uring_req_header *head = header(lane);
    struct fuse_in_header in;
    memcpy(&in, head->in_out, sizeof in);
    size_t body = head->ring_ent_in_out.payload_sz;
    lane->unique = in.unique;
    if (in.len < sizeof in + body || body > ring.payload || in.len - sizeof in - body > sizeof head->op_in)
        return answer_error(lane, EIO);
    if (body > lane->touched) lane->touched = body;
    size_t operation = in.len - sizeof in - body;
    unsigned char *start = payload(lane) - operation - sizeof in;
    memcpy(start, &in, sizeof in);
    memcpy(start + sizeof in, head->op_in, operation);
    lethefs_placement_note(&ring.places[lane->queue], (const struct fuse_in_header *)start, in.len, 1);
    lethefs_note_request(start, in.len);
    struct fuse_buf message = {.mem = start, .size = in.len};
    fuse_session_process_buf(ring.session, &message);
    if (lane->unique != 0) answer_error(lane, EIO);
}

static void submit_register(struct lane *lane) {
    struct fuse_uring_cmd_req command = {.qid = lane->queue};
    lethefs_ring_io_command(&lane->io, FUSE_IO_URING_CMD_REGISTER, &command, lane->areas, OF_REQUEST);
}

static void submit_commit(struct lane *lane) {
    struct fuse_uring_cmd_req command = {
        .qid = lane->queue, .commit_id = header(lane)->ring_ent_in_out.commit_id};
    lethefs_ring_io_command(&lane->io, FUSE_IO_URING_CMD_COMMIT_AND_FETCH, &command, NULL, OF_REQUEST);
}

// Waits for the INIT reply. False: there is nothing to serve.
static int wait_for_start(void) {
    pthread_mutex_lock(&ring.gate);
    while (ring.state == WAITING) pthread_cond_wait(&ring.opened, &ring.gate);
    int go = ring.state == GO;
    pthread_mutex_unlock(&ring.gate);
    return go;
}

static void open_gate(int state) {
    pthread_mutex_lock(&ring.gate);
    ring.state = state;
    pthread_cond_broadcast(&ring.opened);
    pthread_mutex_unlock(&ring.gate);
}

// Zeroes what the reply that waits to be taken does not cover.
static void wipe_rest(struct lane *lane) {
    explicit_bzero(lane->memory + HEAD, LEAD);
    if (lane->touched > lane->replied)
        explicit_bzero(payload(lane) + lane->replied, lane->touched - lane->replied);
    explicit_bzero(payload(lane) + (lane->touched > lane->replied ? lane->touched : lane->replied), SLACK);
}

static void wipe_step(struct lane *lane) {
    wipe_rest(lane);
    linux_wipe_stack(LINUX_STACK_USED);
    if (--lane->wipes_due > 0) return;
    lane->touched = lane->replied;
    atomic_store(&lane->wiped, atomic_load(&ring.wipe_wanted));
}

static void serve_and_commit(struct lane *lane) {
    serve_request(lane);
    if (lane->wipes_due > 0) wipe_step(lane);
    submit_commit(lane);
}

// A lane that waits for a request wipes all of its memory; one that is busy, what its next two replies leave. The kernel writes a request
// into the memory only while this thread is in io_uring_enter: when a reply is handed over, or when it waits (deferred task work).
static int wipe(struct lane *lane) {
    if (lethefs_ring_io_submit(&lane->io) < 0) return -1;
    if (!lethefs_ring_io_is_empty(&lane->io)) return 0;
    lane->replied = 0;
    lane->wipes_due = 1;
    wipe_step(lane);
    return 0;
}

static int hear_wake(struct lane *lane) {
    uint64_t count;
    if (read(lane->wake_fd, &count, sizeof count) < 0) return -1;
    if (lane->wipes_due == 0) lane->wipes_due = 2;
    lethefs_ring_io_poll(&lane->io, lane->wake_fd, OF_WAKE);
    return 0;
}

// Serves until the connection goes, the session ends, or the kernel refuses the entry.
static void serve_lane(struct lane *lane) {
    if (lethefs_ring_io_enable(&lane->io) != 0) return;
    lethefs_ring_io_poll(&lane->io, lane->wake_fd, OF_WAKE);
    submit_register(lane);
    for (;;) {
        // It may wait for long now.
        if (lane->wipes_due > 0 && wipe(lane) != 0) return;
        if (lethefs_ring_io_wait(&lane->io) < 0) return;
        struct lethefs_completion completion;
        int ends = 0, woken = 0;
        while (lethefs_ring_io_next(&lane->io, &completion)) {
            if (completion.result < 0) {
                ends = 1;
            } else if (completion.of == OF_WAKE) {
                woken = 1;
            } else {
                serve_and_commit(lane);
            }
        }
        if (atomic_load(&ring.stopping)) ends = 1;
        if (woken && !ends && hear_wake(lane) != 0) ends = 1;
        if (!ends) continue;
        // A reply that is ready goes out first: its program is waiting.
        lethefs_ring_io_submit(&lane->io);
        return;
    }
}

static void *lane_thread(void *argument) {
    struct lane *lane = argument;
    own_lane = lane;
    if (!wait_for_start()) return NULL;
    lethefs_placement_join(&ring.places[lane->queue]);
    serve_lane(lane);
    lethefs_placement_leave(&ring.places[lane->queue]);
    lane->replied = 0;
    wipe_rest(lane);
    atomic_store(&lane->gone, 1);
    if (atomic_fetch_sub(&ring.alive[lane->queue], 1) == 1) {
        uint64_t one = 1;
        if (write(ring.failure_fd, &one, sizeof one) < 0) return NULL;
    }
    return NULL;
}

// The lane's ring is made here, and enabled by its own thread, which then is the only one to use it.
static int make_lane(struct lane *lane, unsigned queue) {
    lane->queue = (uint16_t)queue;
    lane->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (lane->wake_fd < 0) return -errno;
    int result = lethefs_ring_io_make(&lane->io, ring.fd);
    if (result != 0) return result;
    void *memory = mmap(NULL, memory_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return -errno;
    lane->memory = memory;
    madvise(memory, memory_size(), MADV_DONTDUMP);
    lane->areas[0] = (struct iovec){lane->memory, sizeof(struct fuse_uring_req_header)};
    lane->areas[1] = (struct iovec){payload(lane), ring.payload};
    const struct lethefs_thread how = {.stack = STACK};
    result = lethefs_start_thread(how, &lane->thread, lane_thread, lane);
    lane->has_thread = result == 0;
    return result;
}

static int prepare(void) {
    ring.failure_fd = eventfd(0, EFD_CLOEXEC);
    if (ring.failure_fd < 0) return -errno;
    ring.alive = calloc(ring.queues, sizeof *ring.alive);
    ring.places = calloc(ring.queues, sizeof *ring.places);
    if (ring.alive == NULL || ring.places == NULL) return -ENOMEM;
    for (unsigned queue = 0; queue < ring.queues; queue++) lethefs_placement_init(&ring.places[queue], (int)queue);
    for (unsigned queue = 0; queue < ring.queues; queue++) {
        atomic_store(&ring.alive[queue], (int)ring.lanes_each);
        for (unsigned index = 0; index < ring.lanes_each; index++) {
            int result = make_lane(&ring.lanes[queue * ring.lanes_each + index], queue);
            if (result != 0) return result;
        }
    }
    return 0;
}

// A ring and what wakes its thread for each lane.
static unsigned descriptors(void) { return 2 * ring.queues * ring.lanes_each; }

int lethefs_ring_descriptors(void) { return ring.lanes == NULL ? 0 : (int)descriptors() + 1; }

int lethefs_ring_prepare(struct fuse_session *session, int fd, size_t payload) {
    int queues = lethefs_possible_cpus();
    if (queues <= 0 || queues > MAX_QUEUES) return -ENOTSUP;
    ring.session = session;
    ring.fd = fd;
    ring.payload = (payload + PAGE - 1) & ~(size_t)(PAGE - 1);
    ring.queues = (unsigned)queues;
    ring.lanes_each = queues <= 4 ? 4 : 2;
    ring.failure_fd = -1;
    ring.stopping = 0;
    ring.state = WAITING;
    struct rlimit limit;
    // Programs need the rest.
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || descriptors() > limit.rlim_cur / 4) return -EMFILE;
    ring.lanes = calloc((size_t)ring.queues * ring.lanes_each, sizeof *ring.lanes);
    if (ring.lanes == NULL) return -ENOMEM;
    for (unsigned index = 0; index < ring.queues * ring.lanes_each; index++)
        ring.lanes[index].io.fd = ring.lanes[index].wake_fd = -1;
    int result = prepare();
    if (result != 0) lethefs_ring_stop();
    return result;
}

void lethefs_ring_start(void) { open_gate(GO); }

static void wake(struct lane *lane) {
    uint64_t one = 1;
    // Fails only where there is no descriptor, and then no thread either.
    if (lane->wake_fd >= 0 && write(lane->wake_fd, &one, sizeof one) < 0) return;
}

int lethefs_ring_wipe(void) {
    int waiting = 0;
    // Held meanwhile: the lanes stay. They do not take it while they serve.
    pthread_mutex_lock(&ring.gate);
    unsigned count = ring.lanes != NULL && ring.state == GO ? ring.queues * ring.lanes_each : 0;
    unsigned wanted = atomic_fetch_add(&ring.wipe_wanted, 1) + 1;
    for (unsigned index = 0; index < count; index++) wake(&ring.lanes[index]);
    for (int millisecond = 0; millisecond < 2000; millisecond++) {
        waiting = 0;
        for (unsigned index = 0; index < count; index++)
            if (!atomic_load(&ring.lanes[index].gone) && atomic_load(&ring.lanes[index].wiped) < wanted) waiting = 1;
        if (!waiting) break;
        usleep(1000);
    }
    pthread_mutex_unlock(&ring.gate);
    return waiting ? -ETIMEDOUT : 0;
}

static void free_lane(struct lane *lane) {
    lethefs_ring_io_close(&lane->io);
    if (lane->wake_fd >= 0) close(lane->wake_fd);
    if (lane->memory == NULL) return;
    lane->replied = 0;
    wipe_rest(lane);
    munmap(lane->memory, memory_size());
}

void lethefs_ring_stop(void) {
    if (ring.lanes == NULL) return;
    // Before the start, the threads wait at the gate; after it, for requests.
    if (ring.state == WAITING) open_gate(NO_GO);
    atomic_store(&ring.stopping, 1);
    unsigned count = ring.queues * ring.lanes_each;
    for (unsigned index = 0; index < count; index++) wake(&ring.lanes[index]);
    for (unsigned index = 0; index < count; index++)
        if (ring.lanes[index].has_thread) pthread_join(ring.lanes[index].thread, NULL);
    pthread_mutex_lock(&ring.gate);
    for (unsigned queue = 0; ring.places != NULL && queue < ring.queues; queue++) lethefs_placement_end(&ring.places[queue]);
    for (unsigned index = 0; index < count; index++) free_lane(&ring.lanes[index]);
    free(ring.lanes);
    free(ring.alive);
    free(ring.places);
    ring.lanes = NULL;
    ring.alive = NULL;
    ring.places = NULL;
    pthread_mutex_unlock(&ring.gate);
    if (ring.failure_fd >= 0) close(ring.failure_fd);
    ring.failure_fd = -1;
}
