#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Workers.h"
#include "CFuse.h"
#include "Monitor.h"
#include "Threads.h"

#include <CLinux.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { STACK = 1 << 20, WAITING_AT_MOST = 3 };

struct lethefs_pool lethefs_pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER, .watching = PTHREAD_COND_INITIALIZER};
static struct lethefs_pool *const pool = &lethefs_pool;

static _Thread_local struct lethefs_worker *own;

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
        atomic_fetch_add(&pool->returning, 1);
    }
    return writev(own->fd, iov, count);
}

static void finish(int error) {
    int none = 0;
    if (error != 0) atomic_compare_exchange_strong(&pool->error, &none, error);
    fuse_session_exit(pool->session);
    uint64_t one = 1;
    // Fails only where the counter is full: then it is readable already.
    if (write(pool->end_fd, &one, sizeof one) < 0) return;
}

static void wipe(struct lethefs_worker *worker) {
    unsigned wanted = atomic_load(&pool->wipe_wanted);
    if (atomic_load_explicit(&worker->wiped, memory_order_relaxed) == wanted) return;
    explicit_bzero(worker->memory, worker->touched);
    worker->touched = 0;
    linux_wipe_stack(LINUX_STACK_USED);
    atomic_store(&worker->wiped, wanted);
}

static void *work(void *argument);

// Makes a worker, which begins at once. The caller holds `lock`.
static int add_worker(void) {
    struct lethefs_worker *worker = &pool->workers[pool->count];
    memset(worker, 0, sizeof *worker);
    worker->wiped = atomic_load(&pool->wipe_wanted);
    worker->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (worker->fd < 0) return -errno;
    uint32_t session_fd = (uint32_t)fuse_session_fd(pool->session);
    int result = ioctl(worker->fd, FUSE_DEV_IOC_CLONE, &session_fd) == 0 ? 0 : -errno;
    if (result == 0) {
        void *memory = mmap(NULL, pool->room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) result = -errno;
        else worker->memory = memory;
    }
    if (result == 0) {
        madvise(worker->memory, pool->room, MADV_DONTDUMP);
        const struct lethefs_thread how = {.stack = STACK, .signal = interruption()};
        result = lethefs_start_thread(how, &worker->thread, work, worker);
    }
    if (result == 0) {
        pool->count++;
        pool->starting++;
        return 0;
    }
    if (worker->memory != NULL) munmap(worker->memory, pool->room);
    close(worker->fd);
    return result;
}

void lethefs_pool_call_another(void) {
    if (pool->calls > 0 || pool->starting > 0 || fuse_session_exited(pool->session)) return;
    if (atomic_load(&pool->parked) > 0) {
        pool->calls++;
        pthread_cond_signal(&pool->called);
    } else if (pool->count < pool->highest) {
        // Without it those that are there have to do.
        (void)add_worker();
    }
}

// The disk does it.
static int is_flush(const struct fuse_in_header *request) {
    return request->opcode == FUSE_FSYNC || request->opcode == FUSE_FSYNCDIR;
}

static void park(struct lethefs_worker *worker) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->parked, 1);
    // Those that waited may all have got a request since this worker looked; whoever took the last one may have found nobody here.
    while (pool->calls == 0 && atomic_load(&pool->waiting) > 0 && !fuse_session_exited(pool->session)) {
        wipe(worker);
        pthread_cond_wait(&pool->called, &pool->lock);
    }
    if (pool->calls > 0) pool->calls--;
    atomic_fetch_sub(&pool->parked, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void serve(struct lethefs_worker *worker, size_t length) {
    const struct fuse_in_header *request = (const struct fuse_in_header *)worker->memory;
    // Of an earlier, longer request nothing stays: this one may take its time.
    if (length < worker->touched) explicit_bzero(worker->memory + length, worker->touched - length);
    worker->touched = length;
    lethefs_placement_note(&pool->place, request, length, atomic_load(&pool->serving));
    lethefs_note_request(worker->memory, length);
    struct fuse_buf message = {.mem = worker->memory, .size = length};
    fuse_session_process_buf(pool->session, &message);
    atomic_store(&worker->since, 0);
    lethefs_monitor_unmark(worker);
    atomic_fetch_sub(&pool->serving, 1);
    if (!worker->has_answered) return;
    worker->has_answered = 0;
    atomic_fetch_sub(&pool->returning, 1);
}

static void *work(void *argument) {
    struct lethefs_worker *worker = own = argument;
    pthread_mutex_lock(&pool->lock);
    pool->starting--;
    pthread_mutex_unlock(&pool->lock);
    lethefs_placement_join(&pool->place);
    while (!fuse_session_exited(pool->session)) {
        if (atomic_load_explicit(&pool->wipe_wanted, memory_order_relaxed) != worker->wiped) wipe(worker);
        if (atomic_fetch_add(&pool->waiting, 1) >= WAITING_AT_MOST) {
            atomic_fetch_sub(&pool->waiting, 1);
            park(worker);
            continue;
        }
        // Whoever asks for a wipe, or for the end, sees this one reading, or is seen here.
        atomic_store(&worker->reading, 1);
        ssize_t count = -1;
        int error = EINTR;
        if (atomic_load(&pool->wipe_wanted) == atomic_load(&worker->wiped) && !fuse_session_exited(pool->session)) {
            count = read(worker->fd, worker->memory, pool->room);
            error = errno;
        }
        int has_request = count >= (ssize_t)sizeof(struct fuse_in_header);
        if (has_request) {
            atomic_store(&worker->since, lethefs_now());
            atomic_fetch_add(&pool->serving, 1);
            if (is_flush((const struct fuse_in_header *)worker->memory)) lethefs_monitor_mark_slow(worker);
        }
        atomic_store(&worker->reading, 0);
        int left = atomic_fetch_sub(&pool->waiting, 1) - 1;
        if (has_request) {
            if (left == 0) lethefs_monitor_leave_nobody();
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
    lethefs_placement_leave(&pool->place);
    explicit_bzero(worker->memory, worker->touched);
    atomic_store(&worker->gone, 1);
    return NULL;
}

// Interrupts those that wait until each has heard of it: a signal may come just before the read.
static int interrupt_until(int (*done)(const struct lethefs_worker *), int milliseconds) {
    for (int waited = 0;; waited++) {
        int missing = 0;
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->called);
        for (unsigned index = 0; index < pool->count; index++) {
            if (done(&pool->workers[index])) continue;
            missing++;
            if (atomic_load(&pool->workers[index].reading)) pthread_kill(pool->workers[index].thread, interruption());
        }
        pthread_mutex_unlock(&pool->lock);
        if (missing == 0) return 0;
        if (milliseconds > 0 && waited >= milliseconds) return -ETIMEDOUT;
        usleep(1000);
    }
}

static int has_gone(const struct lethefs_worker *worker) { return atomic_load(&worker->gone); }
static int has_wiped(const struct lethefs_worker *worker) {
    return atomic_load(&worker->gone) || atomic_load(&worker->wiped) == atomic_load(&pool->wipe_wanted);
}

int lethefs_workers_wipe(void) {
    atomic_fetch_add(&pool->wipe_wanted, 1);
    return interrupt_until(has_wiped, 2000);
}

int lethefs_workers_run(struct fuse_session *session, unsigned highest, size_t room) {
    pool->session = session;
    pool->room = (room + 4095) & ~(size_t)4095;
    pool->highest = highest < LETHEFS_PLACED_THREADS ? highest : LETHEFS_PLACED_THREADS;
    cpu_set_t processors;
    pool->processors = sched_getaffinity(0, sizeof processors, &processors) == 0 ? CPU_COUNT(&processors) : LETHEFS_PLACED_THREADS;
    pool->end_fd = eventfd(0, EFD_CLOEXEC);
    if (pool->end_fd < 0) return -errno;
    lethefs_placement_init(&pool->place, -1);
    struct sigaction action = {.sa_handler = do_nothing};
    sigaction(interruption(), &action, NULL);
    lethefs_monitor_start();
    pthread_mutex_lock(&pool->lock);
    int result = add_worker();
    // More come when they are needed, and when they can be had.
    if (result == 0) (void)add_worker();
    pthread_mutex_unlock(&pool->lock);
    // A signal interrupts poll(2), or is noticed after a second at the latest.
    struct pollfd end = {.fd = pool->end_fd, .events = POLLIN};
    while (result == 0 && !fuse_session_exited(session)) poll(&end, 1, 1000);
    fuse_session_exit(session);
    lethefs_monitor_stop();
    interrupt_until(has_gone, 0);
    for (unsigned index = 0; index < pool->count; index++) {
        pthread_join(pool->workers[index].thread, NULL);
        munmap(pool->workers[index].memory, pool->room);
        close(pool->workers[index].fd);
    }
    pool->count = 0;
    lethefs_placement_end(&pool->place);
    close(pool->end_fd);
    return result != 0 ? result : atomic_load(&pool->error);
}
