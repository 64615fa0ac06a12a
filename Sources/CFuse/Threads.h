// Threads of the daemon's own, and their clock.
#pragma once
#include <pthread.h>
#include <stddef.h>
#include <time.h>

/// Nanoseconds of CLOCK_MONOTONIC.
static inline long long lethefs_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

struct lethefs_thread {
    /// Bytes.
    size_t stack;
    /// Nobody joins it.
    int is_detached;
    /// The one signal that it may get, or 0: signals end the session by way of the thread that runs it.
    int signal;
};

/// Starts one; `thread` may be NULL for a detached one. 0, or a negative errno.
int lethefs_start_thread(struct lethefs_thread how, pthread_t *thread, void *(*body)(void *), void *argument);
