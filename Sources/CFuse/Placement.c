#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Placement.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    /// `spread` as it begins, and where the threads leave their common CPU. They come together at 0.
    AT_FIRST = 24,
    LEAVE = 32,
    HIGHEST = 64,
    /// What a request counts that comes from another of the last programs.
    ALTERNATES = 6,
    /// From this size on a request is work that another CPU had better do meanwhile.
    LARGE = 128 << 10,
    LOOK_SOON = 4,
    LOOK_LATER = 64,
};
/// Whoever keeps a thread from its CPU for longer wants it for itself.
#define CONTENDED_NS 200000LL
// How long it is left alone then: twice as long each time that it happens again within a while.
#define PAUSE_NS 10000000LL
#define LONGEST_PAUSE_NS 2000000000LL

// What the threads may use, and whether a thread may take SCHED_IDLE and leave it again: settled once, before there are threads.
static pthread_once_t once = PTHREAD_ONCE_INIT;
static cpu_set_t allowed;
static int usable;

// Of the calling thread. `own_home`: the CPU it is bound to, -1 for none; at first it has what the thread had that made it.
enum { INHERITED = -2 };
static _Thread_local int own_home = INHERITED;
static _Thread_local pid_t own_id;
static _Thread_local int has_waiter, is_lowered;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int change_policy(pid_t thread, int policy) {
    const struct sched_param none = {0};
    return sched_setscheduler(thread, policy, &none);
}

// A thread without the privilege could not leave SCHED_IDLE: one that ends right away finds out.
static void *try_policies(void *unused) {
    (void)unused;
    usable = sched_getscheduler(0) == SCHED_OTHER && change_policy(0, SCHED_IDLE) == 0 && change_policy(0, SCHED_OTHER) == 0;
    return NULL;
}

static void find_out(void) {
    pthread_t thread;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
    if (pthread_create(&thread, NULL, try_policies, NULL) == 0) pthread_join(thread, NULL);
}

void lethefs_placement_init(struct lethefs_placement *place, int cpu) {
    pthread_once(&once, find_out);
    memset(place, 0, sizeof *place);
    place->fixed = cpu;
    place->home = -1;
    place->spread = AT_FIRST;
}

/// The CPU that a thread ran on last: field 39 of /proc/ID/stat (proc(5)); -1 where it cannot be told.
static int cpu_of(pid_t thread) {
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t count = read(fd, text, sizeof text - 1);
    close(fd);
    if (count <= 0) return -1;
    text[count] = 0;
    // The name in brackets may hold anything; what follows the last bracket is field 3.
    char *at = strrchr(text, ')');
    if (at == NULL) return -1;
    for (int field = 3; field <= 39; field++) {
        at = strchr(at + 1, ' ');
        if (at == NULL) return -1;
    }
    int cpu = atoi(at + 1);
    return cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(cpu, &allowed) ? cpu : -1;
}

static void follow(struct lethefs_placement *place, pid_t program) {
    int cpu = place->fixed >= 0 ? place->fixed : cpu_of(program);
    if (place->fixed >= 0 && !CPU_ISSET(cpu, &allowed)) cpu = -1;
    // A /proc that shows no others' processes, or a program in another PID name space.
    if (cpu < 0) atomic_store_explicit(&place->not_before, now() + LONGEST_PAUSE_NS, memory_order_relaxed);
    int before = atomic_exchange_explicit(&place->home, cpu, memory_order_relaxed);
    atomic_store_explicit(&place->until_look, before == cpu ? LOOK_LATER : LOOK_SOON, memory_order_relaxed);
}

static int is_recent(struct lethefs_placement *place, pid_t program) {
    for (int index = 0; index < 4; index++)
        if (atomic_load_explicit(&place->recent[index], memory_order_relaxed) == program) return 1;
    unsigned next = atomic_fetch_add_explicit(&place->next_recent, 1, memory_order_relaxed);
    atomic_store_explicit(&place->recent[next % 4], program, memory_order_relaxed);
    return 0;
}

static size_t size_of(const struct fuse_in_header *request, size_t length) {
    if (request->opcode != FUSE_READ || length < sizeof *request + sizeof(struct fuse_read_in)) return length;
    size_t size = ((const struct fuse_read_in *)(request + 1))->size;
    return size > length ? size : length;
}

void lethefs_placement_note(struct lethefs_placement *place, const struct fuse_in_header *request, size_t length) {
    has_waiter = 0;
    if (!usable) return;
    switch (request->opcode) {
    case FUSE_FORGET: case FUSE_BATCH_FORGET: case FUSE_INTERRUPT: case FUSE_RELEASE: case FUSE_RELEASEDIR: return;
    default: break;
    }
    if (size_of(request, length) >= LARGE) {
        atomic_store_explicit(&place->spread, HIGHEST, memory_order_relaxed);
        atomic_store_explicit(&place->home, -1, memory_order_relaxed);
        return;
    }
    pid_t program = (pid_t)request->pid;
    // What the kernel asks for on its own account.
    if (program == 0) return;
    has_waiter = 1;
    int spread = atomic_load_explicit(&place->spread, memory_order_relaxed);
    if (atomic_exchange_explicit(&place->last, program, memory_order_relaxed) == program)
        spread = spread > 0 ? spread - 1 : 0;
    else if (is_recent(place, program))
        spread = spread + ALTERNATES < HIGHEST ? spread + ALTERNATES : HIGHEST;
    atomic_store_explicit(&place->spread, spread, memory_order_relaxed);
    if (atomic_load_explicit(&place->home, memory_order_relaxed) >= 0) {
        if (spread >= LEAVE)
            atomic_store_explicit(&place->home, -1, memory_order_relaxed);
        else if (atomic_fetch_sub_explicit(&place->until_look, 1, memory_order_relaxed) <= 0)
            follow(place, program);
    } else if (spread == 0 && now() >= atomic_load_explicit(&place->not_before, memory_order_relaxed)) {
        follow(place, program);
    }
}

void lethefs_placement_settle(struct lethefs_placement *place) {
    int home = atomic_load_explicit(&place->home, memory_order_relaxed);
    if (!usable || home == own_home) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    if (home >= 0) CPU_SET(home, &one);
    if (sched_setaffinity(0, sizeof one, home >= 0 ? &one : &allowed) == 0)
        own_home = home;
    else
        // A CPU that was taken away, or a cpuset: not before it is asked for again.
        atomic_store_explicit(&place->home, own_home >= 0 ? own_home : -1, memory_order_relaxed);
}

// A thread that was left with SCHED_IDLE, since the program took over from it, goes on before the next one is: there is never more than
// one, it holds nothing, and the next request helps it on however busy its CPU is.
static void lift(struct lethefs_placement *place) {
    pid_t other = atomic_exchange(&place->lowered, 0);
    if (other != 0) change_policy(other, SCHED_OTHER);
}

static void leave_alone(struct lethefs_placement *place, long long at) {
    long long last = atomic_load_explicit(&place->not_before, memory_order_relaxed);
    long long pause = atomic_load_explicit(&place->pause, memory_order_relaxed);
    pause = last != 0 && at - last < 2 * pause ? 2 * pause : PAUSE_NS;
    if (pause > LONGEST_PAUSE_NS) pause = LONGEST_PAUSE_NS;
    atomic_store_explicit(&place->pause, pause, memory_order_relaxed);
    atomic_store_explicit(&place->not_before, at + pause, memory_order_relaxed);
    atomic_store_explicit(&place->spread, AT_FIRST, memory_order_relaxed);
    atomic_store_explicit(&place->home, -1, memory_order_relaxed);
}

int lethefs_placement_begin_reply(struct lethefs_placement *place) {
    if (atomic_load_explicit(&place->lowered, memory_order_relaxed) != 0) lift(place);
    if (!has_waiter || own_home < 0 || own_home != atomic_load_explicit(&place->home, memory_order_relaxed)) return 0;
    // Whoever else can run here does so first. If that takes time, the CPU is wanted by others: a thread with SCHED_IDLE would wait for
    // them, and the program with it.
    long long before = now();
    sched_yield();
    long long after = now();
    if (after - before > CONTENDED_NS) {
        leave_alone(place, after);
        return 0;
    }
    if (own_id == 0) own_id = gettid();
    pid_t none = 0;
    if (!atomic_compare_exchange_strong(&place->lowered, &none, own_id)) return 0;
    is_lowered = 1;
    return change_policy(0, SCHED_IDLE) == 0;
}

void lethefs_placement_end_reply(struct lethefs_placement *place) {
    if (!is_lowered) return;
    is_lowered = 0;
    pid_t own = own_id;
    // Where another thread has lifted this one, it may have done so before there was anything to lift.
    if (atomic_compare_exchange_strong(&place->lowered, &own, 0) || sched_getscheduler(0) != SCHED_OTHER)
        change_policy(0, SCHED_OTHER);
}
