#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Workers.h"
#include "CFuse.h"
#include "Placement.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    STACK = 1 << 20,
    MONITOR_STACK = 64 << 10,
    HIGHEST = LETHEFS_PLACED_THREADS,
    WAITING_AT_MOST = 3,
    // Looks of the monitor that find nobody waiting, after which another is called, and that find one, after which it sleeps.
    STARVED = 2,
    QUIET = 64,
};
#define LOOK_NS 1000000L
// When there is nobody to call.
#define LONG_LOOK_NS 20000000L
// A request that takes longer waits for something else than a processor, or is large.
#define SLOW_NS 200000LL

struct worker {
    pthread_t thread;
    int fd;
    unsigned char *memory;
    // Bytes of `memory` that have held something since it was zeroed.
    size_t touched;
    // The last wipe that this worker has done, and whether its thread has ended.
    _Atomic unsigned wiped;
    _Atomic int gone;
    // It is in read(2), or about to be: a signal gets it out. What it does otherwise is not to be disturbed.
    _Atomic int reading;
    // It has answered the request in `memory`. Its own.
    int has_answered;
    // Since when it has served its request: nanoseconds of CLOCK_MONOTONIC. 0: it serves none.
    _Atomic long long since;
    // Its request waits for something else than a processor. Counted in `slow`.
    _Atomic int is_slow;
};

// One session a process: a mount is a process.
static struct {
    struct fuse_session *session;
    size_t room;
    unsigned highest;
    struct lethefs_placement place;
    // Readable once a worker has found that the session is over.
    int end_fd;
    _Atomic int error;
    // Workers that wait for a request, those that serve one, and of these those that have answered it, and those that wait for something
    // else than a processor.
    _Atomic int waiting, serving, returning, slow;
    // Processors: as many workers get on at a time.
    int processors;
    pthread_t monitor;
    int has_monitor;
    _Atomic int parked;
    _Atomic unsigned wipe_wanted;
    // Guards what follows.
    pthread_mutex_t lock;
    pthread_cond_t called, watching;
    // The monitor looks.
    int is_watched;
    unsigned calls;
    // Threads that were made, and have not begun.
    unsigned starting;
    unsigned count;
    struct worker workers[HIGHEST];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER, .watching = PTHREAD_COND_INITIALIZER};

static _Thread_local struct worker *own;

// Interrupts read(2) and nothing else.
static int interruption(void) { return SIGRTMIN + 3; }
static void do_nothing(int signal) { (void)signal; }

ssize_t lethefs_workers_reply(const struct iovec *iov, int count) {
    if (own == NULL) return -2;
    const struct fuse_out_header *reply = iov[0].iov_base;
    const struct fuse_in_header *request = (const struct fuse_in_header *)own->memory;
    // Before the answer: the program may run, and ask for more, before this thread does again. libfuse answers late interruptions, too.
    if (!own->has_answered && reply->unique == request->unique) {
        own->has_answered = 1;
        atomic_fetch_add(&pool.returning, 1);
    }
    return writev(own->fd, iov, count);
}

static void finish(int error) {
    int none = 0;
    if (error != 0) atomic_compare_exchange_strong(&pool.error, &none, error);
    fuse_session_exit(pool.session);
    uint64_t one = 1;
    // Fails only where the counter is full: then it is readable already.
    if (write(pool.end_fd, &one, sizeof one) < 0) return;
}

static void wipe(struct worker *worker) {
    unsigned wanted = atomic_load(&pool.wipe_wanted);
    if (atomic_load_explicit(&worker->wiped, memory_order_relaxed) == wanted) return;
    explicit_bzero(worker->memory, worker->touched);
    worker->touched = 0;
    atomic_store(&worker->wiped, wanted);
}

static void *work(void *argument);

// Makes a worker, which begins at once. The caller holds `lock`.
static int add_worker(void) {
    struct worker *worker = &pool.workers[pool.count];
    memset(worker, 0, sizeof *worker);
    worker->wiped = atomic_load(&pool.wipe_wanted);
    worker->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (worker->fd < 0) return -errno;
    uint32_t session_fd = (uint32_t)fuse_session_fd(pool.session);
    int result = ioctl(worker->fd, FUSE_DEV_IOC_CLONE, &session_fd) == 0 ? 0 : -errno;
    if (result == 0) {
        void *memory = mmap(NULL, pool.room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) result = -errno;
        else worker->memory = memory;
    }
    if (result == 0) {
        madvise(worker->memory, pool.room, MADV_DONTDUMP);
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, STACK);
        // Signals end the session by way of the thread that runs it.
        sigset_t all, before;
        sigfillset(&all);
        sigdelset(&all, interruption());
        pthread_sigmask(SIG_SETMASK, &all, &before);
        result = -pthread_create(&worker->thread, &attributes, work, worker);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        pthread_attr_destroy(&attributes);
    }
    if (result == 0) {
        pool.count++;
        pool.starting++;
        return 0;
    }
    if (worker->memory != NULL) munmap(worker->memory, pool.room);
    close(worker->fd);
    return result;
}

// Has another worker wait for a request. The caller holds `lock`.
static void call_another(void) {
    // One that was called, or made, is on its way: it calls the next one itself.
    if (pool.calls > 0 || pool.starting > 0 || fuse_session_exited(pool.session)) return;
    if (atomic_load(&pool.parked) > 0) {
        pool.calls++;
        pthread_cond_signal(&pool.called);
    } else if (pool.count < pool.highest) {
        // Without it those that are there have to do.
        (void)add_worker();
    }
}

// More workers than processors are in each other's way, unless some wait for a disk, or for one another.
static int has_room(void) { return atomic_load(&pool.serving) - atomic_load(&pool.slow) < pool.processors; }

static void mark_slow(struct worker *worker) {
    int no = 0;
    if (atomic_compare_exchange_strong(&worker->is_slow, &no, 1)) atomic_fetch_add(&pool.slow, 1);
}

static void unmark_slow(struct worker *worker) {
    if (atomic_load(&worker->is_slow) && atomic_exchange(&worker->is_slow, 0)) atomic_fetch_sub(&pool.slow, 1);
}

// The disk does it.
static int is_flush(const struct fuse_in_header *request) {
    return request->opcode == FUSE_FSYNC || request->opcode == FUSE_FSYNCDIR;
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

// Whether another worker would get on, once it is clear who waits. The caller holds `lock`.
static int finds_room(void) {
    long long before = now() - SLOW_NS;
    for (unsigned index = 0; index < pool.count; index++) {
        struct worker *worker = &pool.workers[index];
        long long since = atomic_load(&worker->since);
        if (since == 0 || since > before) continue;
        mark_slow(worker);
        // It may have ended meanwhile, and looked for the mark before.
        if (atomic_load(&worker->since) != since) unmark_slow(worker);
    }
    return has_room();
}

// Looks after those who left nobody waiting, and called nobody.
static void *monitor(void *unused) {
    (void)unused;
    int quiet = 0, starved = 0;
    pthread_mutex_lock(&pool.lock);
    while (!fuse_session_exited(pool.session)) {
        if (!pool.is_watched) {
            pthread_cond_wait(&pool.watching, &pool.lock);
            continue;
        }
        int has_nobody = pool.count == pool.highest && atomic_load(&pool.parked) == 0;
        const struct timespec pause = {0, has_nobody ? LONG_LOOK_NS : LOOK_NS};
        pthread_mutex_unlock(&pool.lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&pool.lock);
        int is_waiting = atomic_load(&pool.waiting) > 0;
        quiet = is_waiting ? quiet + 1 : 0;
        starved = is_waiting ? 0 : starved + 1;
        if (starved >= STARVED && finds_room()) call_another();
        // Whoever leaves nobody waiting from now on wakes it again.
        if (quiet >= QUIET) pool.is_watched = quiet = 0;
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

// This worker has taken a request, and nobody waits for the next one.
static void leave_nobody(void) {
    pthread_mutex_lock(&pool.lock);
    // One that has answered is back in a moment, mostly; calling another costs two switches.
    if (!pool.has_monitor || (atomic_load(&pool.returning) == 0 && finds_room())) {
        call_another();
    } else if (!pool.is_watched) {
        pool.is_watched = 1;
        pthread_cond_signal(&pool.watching);
    }
    pthread_mutex_unlock(&pool.lock);
}

static void park(struct worker *worker) {
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.parked, 1);
    // Those that waited may all have got a request since this worker looked; whoever took the last one may have found nobody here.
    while (pool.calls == 0 && atomic_load(&pool.waiting) > 0 && !fuse_session_exited(pool.session)) {
        wipe(worker);
        pthread_cond_wait(&pool.called, &pool.lock);
    }
    if (pool.calls > 0) pool.calls--;
    atomic_fetch_sub(&pool.parked, 1);
    pthread_mutex_unlock(&pool.lock);
}

static void serve(struct worker *worker, size_t length) {
    const struct fuse_in_header *request = (const struct fuse_in_header *)worker->memory;
    // Of an earlier, longer request nothing stays: this one may take its time.
    if (length < worker->touched) explicit_bzero(worker->memory + length, worker->touched - length);
    worker->touched = length;
    lethefs_placement_note(&pool.place, request, length, atomic_load(&pool.serving));
    lethefs_note_request(worker->memory, length);
    struct fuse_buf message = {.mem = worker->memory, .size = length};
    fuse_session_process_buf(pool.session, &message);
    atomic_store(&worker->since, 0);
    unmark_slow(worker);
    atomic_fetch_sub(&pool.serving, 1);
    if (!worker->has_answered) return;
    worker->has_answered = 0;
    atomic_fetch_sub(&pool.returning, 1);
}

static void *work(void *argument) {
    struct worker *worker = own = argument;
    pthread_mutex_lock(&pool.lock);
    pool.starting--;
    pthread_mutex_unlock(&pool.lock);
    lethefs_placement_join(&pool.place);
    while (!fuse_session_exited(pool.session)) {
        if (atomic_load_explicit(&pool.wipe_wanted, memory_order_relaxed) != worker->wiped) wipe(worker);
        if (atomic_fetch_add(&pool.waiting, 1) >= WAITING_AT_MOST) {
            atomic_fetch_sub(&pool.waiting, 1);
            park(worker);
            continue;
        }
        // Whoever asks for a wipe, or for the end, sees this one reading, or is seen here.
        atomic_store(&worker->reading, 1);
        ssize_t count = -1;
        int error = EINTR;
        if (atomic_load(&pool.wipe_wanted) == atomic_load(&worker->wiped) && !fuse_session_exited(pool.session)) {
            count = read(worker->fd, worker->memory, pool.room);
            error = errno;
        }
        int has_request = count >= (ssize_t)sizeof(struct fuse_in_header);
        if (has_request) {
            atomic_store(&worker->since, now());
            atomic_fetch_add(&pool.serving, 1);
            if (is_flush((const struct fuse_in_header *)worker->memory)) mark_slow(worker);
        }
        atomic_store(&worker->reading, 0);
        int left = atomic_fetch_sub(&pool.waiting, 1) - 1;
        if (has_request) {
            if (left == 0) leave_nobody();
            serve(worker, (size_t)count);
        } else if (count >= 0) {
            finish(-EIO);
        } else if (error == ENODEV) {
            // Unmounted, or the connection was ended.
            finish(0);
        } else if (error != EINTR && error != EAGAIN && error != ENOENT) {
            finish(-error);
        }
    }
    lethefs_placement_leave(&pool.place);
    explicit_bzero(worker->memory, worker->touched);
    atomic_store(&worker->gone, 1);
    return NULL;
}

// Interrupts those that wait until each has heard of it: a signal may come just before the read.
static int interrupt_until(int (*done)(const struct worker *), int milliseconds) {
    for (int waited = 0;; waited++) {
        int missing = 0;
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.called);
        for (unsigned index = 0; index < pool.count; index++) {
            if (done(&pool.workers[index])) continue;
            missing++;
            if (atomic_load(&pool.workers[index].reading)) pthread_kill(pool.workers[index].thread, interruption());
        }
        pthread_mutex_unlock(&pool.lock);
        if (missing == 0) return 0;
        if (milliseconds > 0 && waited >= milliseconds) return -ETIMEDOUT;
        usleep(1000);
    }
}

static void start_monitor(void) {
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MONITOR_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    // Without it each worker that leaves nobody waiting calls another.
    pool.has_monitor = pthread_create(&pool.monitor, &attributes, monitor, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

static void stop_monitor(void) {
    if (!pool.has_monitor) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_signal(&pool.watching);
    pthread_mutex_unlock(&pool.lock);
    pthread_join(pool.monitor, NULL);
}

static int has_gone(const struct worker *worker) { return atomic_load(&worker->gone); }
static int has_wiped(const struct worker *worker) {
    return atomic_load(&worker->gone) || atomic_load(&worker->wiped) == atomic_load(&pool.wipe_wanted);
}

int lethefs_workers_wipe(void) {
    atomic_fetch_add(&pool.wipe_wanted, 1);
    return interrupt_until(has_wiped, 2000);
}

int lethefs_workers_run(struct fuse_session *session, unsigned highest, size_t room) {
    pool.session = session;
    pool.room = (room + 4095) & ~(size_t)4095;
    pool.highest = highest < HIGHEST ? highest : HIGHEST;
    cpu_set_t processors;
    pool.processors = sched_getaffinity(0, sizeof processors, &processors) == 0 ? CPU_COUNT(&processors) : HIGHEST;
    pool.end_fd = eventfd(0, EFD_CLOEXEC);
    if (pool.end_fd < 0) return -errno;
    lethefs_placement_init(&pool.place, -1);
    struct sigaction action = {.sa_handler = do_nothing};
    sigaction(interruption(), &action, NULL);
    start_monitor();
    pthread_mutex_lock(&pool.lock);
    int result = add_worker();
    // More come when they are needed, and when they can be had.
    if (result == 0) (void)add_worker();
    pthread_mutex_unlock(&pool.lock);
    // A signal interrupts poll(2), or is noticed after a second at the latest.
    struct pollfd end = {.fd = pool.end_fd, .events = POLLIN};
    while (result == 0 && !fuse_session_exited(session)) poll(&end, 1, 1000);
    fuse_session_exit(session);
    stop_monitor();
    interrupt_until(has_gone, 0);
    for (unsigned index = 0; index < pool.count; index++) {
        pthread_join(pool.workers[index].thread, NULL);
        munmap(pool.workers[index].memory, pool.room);
        close(pool.workers[index].fd);
    }
    pool.count = 0;
    lethefs_placement_end(&pool.place);
    close(pool.end_fd);
    return result != 0 ? result : atomic_load(&pool.error);
}
