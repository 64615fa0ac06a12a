#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Monitor.h"
#include "CFuse.h"
#include "Threads.h"

enum {
    STACK = 64 << 10,
    // Looks that find nobody waiting, after which another is called, and that find one, after which the monitor sleeps.
    STARVED = 2,
    QUIET = 64,
};
#define LOOK_NS 1000000L
// When there is nobody to call.
#define LONG_LOOK_NS 20000000L
// A request that takes longer waits for something else than a processor, or is large.
#define SLOW_NS 200000LL

static struct lethefs_pool *const pool = &lethefs_pool;

// More workers than processors are in each other's way, unless some wait for a disk, or for one another.
static int has_room(void) { return atomic_load(&pool->serving) - atomic_load(&pool->slow) < pool->processors; }

void lethefs_monitor_mark_slow(struct lethefs_worker *worker) {
    int no = 0;
    if (atomic_compare_exchange_strong(&worker->is_slow, &no, 1)) atomic_fetch_add(&pool->slow, 1);
}

void lethefs_monitor_unmark(struct lethefs_worker *worker) {
    if (atomic_load(&worker->is_slow) && atomic_exchange(&worker->is_slow, 0)) atomic_fetch_sub(&pool->slow, 1);
}

// Whether another worker would get on, once it is clear who waits. The caller holds `lock`.
static int finds_room(void) {
    long long before = lethefs_now() - SLOW_NS;
    for (unsigned index = 0; index < pool->count; index++) {
        struct lethefs_worker *worker = &pool->workers[index];
        long long since = atomic_load(&worker->since);
        if (since == 0 || since > before) continue;
        lethefs_monitor_mark_slow(worker);
        // It may have ended meanwhile, and looked for the mark before.
        if (atomic_load(&worker->since) != since) lethefs_monitor_unmark(worker);
    }
    return has_room();
}

// Looks after those who left nobody waiting, and called nobody.
static void *monitor(void *unused) {
    (void)unused;
    int quiet = 0, starved = 0;
    pthread_mutex_lock(&pool->lock);
    while (!fuse_session_exited(pool->session)) {
        if (!pool->is_watched) {
            pthread_cond_wait(&pool->watching, &pool->lock);
            continue;
        }
        int has_nobody = pool->count == pool->highest && atomic_load(&pool->parked) == 0;
        const struct timespec pause = {0, has_nobody ? LONG_LOOK_NS : LOOK_NS};
        pthread_mutex_unlock(&pool->lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&pool->lock);
        int is_waiting = atomic_load(&pool->waiting) > 0;
        quiet = is_waiting ? quiet + 1 : 0;
        starved = is_waiting ? 0 : starved + 1;
        if (starved >= STARVED && finds_room()) lethefs_pool_call_another();
        // Whoever leaves nobody waiting from now on wakes it again.
        if (quiet >= QUIET) pool->is_watched = quiet = 0;
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

void lethefs_monitor_leave_nobody(void) {
    pthread_mutex_lock(&pool->lock);
    // One that has answered is back in a moment, mostly; calling another costs two switches.
    if (!pool->has_monitor || (atomic_load(&pool->returning) == 0 && finds_room())) {
        lethefs_pool_call_another();
    } else if (!pool->is_watched) {
        pool->is_watched = 1;
        pthread_cond_signal(&pool->watching);
    }
    pthread_mutex_unlock(&pool->lock);
}

void lethefs_monitor_start(void) {
    const struct lethefs_thread how = {.stack = STACK};
    pool->has_monitor = lethefs_start_thread(how, &pool->monitor, monitor, NULL) == 0;
}

void lethefs_monitor_stop(void) {
    if (!pool->has_monitor) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->watching);
    pthread_mutex_unlock(&pool->lock);
    pthread_join(pool->monitor, NULL);
}
