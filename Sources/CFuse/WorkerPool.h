// What the threads of Workers.c and Monitor.c share: who waits for a request, who serves one, and who is in whose way.
#pragma once
#include "Placement.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

struct fuse_session;

struct lethefs_worker {
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

/// One session a process: a mount is a process.
struct lethefs_pool {
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
    struct lethefs_worker workers[LETHEFS_PLACED_THREADS];
};

extern struct lethefs_pool lethefs_pool;

/// Has another worker wait for a request, unless one is on its way already: that one calls the next itself. The caller holds `lock`.
void lethefs_pool_call_another(void);
