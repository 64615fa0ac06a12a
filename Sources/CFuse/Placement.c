#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Placement.h"
#include "Threads.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STACK = 64 << 10 };
enum {
    /// `spread` as it begins, and where the threads scatter. They gather at 0.
    AT_FIRST = 24,
    LEAVE = 32,
    HIGHEST = 64,
    /// What a request counts that comes from another of the last programs.
    ALTERNATES = 6,
    /// From this size on a request is much work.
    LARGE = 128 << 10,
    LOOK_SOON = 4,
    LOOK_AT_CROWD = 16,
    LOOK_LATER = 64,
    /// Bounds of `crowd`, and where threads of a queue of all CPUs gather and scatter.
    CROWD = 6,
    CROWD_GATHERS = 5,
    CROWD_SCATTERS = 1,
    /// Looks of the watcher after which the threads have SCHED_OTHER again: others want the CPUs, or nobody wants anything.
    WANTED = 2,
    QUIET = 5,
};
#define LOOK_NS 1000000L
// For how long it is SCHED_OTHER where others want the CPUs: twice as long each time that it happens again within a while.
#define PAUSE_NS 50000000LL
#define LONGEST_PAUSE_NS 2000000000LL

// What the threads may use, whether there is anything to choose, and whether a thread may take SCHED_IDLE and leave it again: settled once,
// before there are threads.
static pthread_once_t once = PTHREAD_ONCE_INIT;
static cpu_set_t allowed;
static int usable, may_be_low, load_fd = -1;
static long processors;

// Guards what threads are where, and `all`. Whoever holds it has SCHED_OTHER: the watcher must not have to wait.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t watching = PTHREAD_COND_INITIALIZER;
static struct lethefs_placement *all;
// Places that are watched, and whether the watcher is there.
static int watched, has_watcher;

static int is_of_one_cpu(const struct lethefs_placement *place) { return place->fixed >= 0; }

static int change_policy(pid_t thread, int policy) {
    const struct sched_param none = {0};
    return sched_setscheduler(thread, policy, &none);
}

// A thread without the privilege could not leave SCHED_IDLE: one that ends right away finds out.
static void *try_policies(void *unused) {
    (void)unused;
    may_be_low = change_policy(0, SCHED_IDLE) == 0 && change_policy(0, SCHED_OTHER) == 0;
    return NULL;
}

static void find_out(void) {
    // For bench/pair, which compares.
    const char *wish = getenv("LETHEFS_PLACEMENT");
    if (wish != NULL && strcmp(wish, "off") == 0) return;
    pthread_t thread;
    load_fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    processors = sysconf(_SC_NPROCESSORS_ONLN);
    usable = load_fd >= 0 && sched_getscheduler(0) == SCHED_OTHER
        && sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_COUNT(&allowed) >= 2;
    if (!usable) return;
    if (pthread_create(&thread, NULL, try_policies, NULL) == 0) pthread_join(thread, NULL);
}

void lethefs_placement_init(struct lethefs_placement *place, int cpu) {
    pthread_once(&once, find_out);
    memset(place, 0, sizeof *place);
    place->fixed = cpu;
    place->home = -1;
    place->spread = AT_FIRST;
    pthread_mutex_lock(&lock);
    place->next = all;
    all = place;
    pthread_mutex_unlock(&lock);
}

// Puts a thread where the others are; the calling thread keeps its policy. False when the kernel refuses: a CPU that was taken away, or a
// cpuset.
static int put(const struct lethefs_placement *place, pid_t thread) {
    int home = atomic_load(&place->home);
    cpu_set_t one;
    CPU_ZERO(&one);
    if (home >= 0) CPU_SET(home, &one);
    int policy = 0;
    if (is_of_one_cpu(place) && thread != gettid()) policy = change_policy(thread, place->is_low ? SCHED_IDLE : SCHED_OTHER);
    return sched_setaffinity(thread, sizeof one, home >= 0 ? &one : &allowed) == 0 && policy == 0;
}

// The caller holds `lock`.
static int settle(struct lethefs_placement *place, int home, int is_low) {
    int is_watched = is_low || (!is_of_one_cpu(place) && home >= 0);
    watched += is_watched - place->is_watched;
    place->is_watched = is_watched;
    place->is_low = is_low;
    atomic_store(&place->home, home);
    int result = 1;
    for (unsigned index = 0; index < place->count; index++) result &= put(place, place->threads[index]);
    return result;
}

static void scatter(struct lethefs_placement *place) {
    atomic_store(&place->until_look, 0);
    if (atomic_load(&place->home) >= 0) settle(place, -1, 0);
}

static void lift(struct lethefs_placement *place) { settle(place, atomic_load(&place->home), 0); }

// Others want the CPUs: not SCHED_IDLE for a while. The caller holds `lock`.
static void yield_to_others(struct lethefs_placement *place) {
    long long at = lethefs_now(), last = atomic_load(&place->not_before);
    place->pause = last != 0 && at - last < 2 * place->pause ? 2 * place->pause : PAUSE_NS;
    if (place->pause > LONGEST_PAUSE_NS) place->pause = LONGEST_PAUSE_NS;
    atomic_store(&place->not_before, at + place->pause);
    lift(place);
}

// Around what a serving thread does with `lock`.
static void begin_change(const struct lethefs_placement *place) {
    if (is_of_one_cpu(place)) change_policy(0, SCHED_OTHER);
    pthread_mutex_lock(&lock);
    // Whoever held it before may have lowered this thread with the others.
    if (is_of_one_cpu(place)) change_policy(0, SCHED_OTHER);
}

static void end_change(struct lethefs_placement *place) {
    pthread_mutex_unlock(&lock);
    if (!place->is_low) return;
    change_policy(0, SCHED_IDLE);
    // If the others have been lifted meanwhile, it was without this one.
    if (!place->is_low) change_policy(0, SCHED_OTHER);
}

/// Threads that run or want to, but for the calling one (proc(5), /proc/loadavg: the fourth field).
static int others_running(void) {
    char text[64];
    ssize_t count = pread(load_fd, text, sizeof text - 1, 0);
    if (count <= 0) return 0;
    text[count] = 0;
    int running = 0;
    return sscanf(text, "%*s %*s %*s %d/", &running) == 1 ? running - 1 : 0;
}

static int is_crowded(int others) { return others > processors; }

/// Reads /proc/ID/stat (proc(5)) of a thread from field 3 on, or NULL.
static char *status(pid_t thread, char *text, size_t size) {
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return NULL;
    ssize_t count = read(fd, text, size - 1);
    close(fd);
    if (count <= 0) return NULL;
    text[count] = 0;
    // The name in brackets may hold anything; what follows the last bracket is field 3.
    char *end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' ? end + 2 : NULL;
}

/// The CPU that a thread ran on last: field 39; -1 where it cannot be told.
static int cpu_of(pid_t thread) {
    char text[1024], *at = status(thread, text, sizeof text);
    for (int field = 3; field < 39 && at != NULL; field++)
        if ((at = strchr(at, ' ')) != NULL) at++;
    int cpu = at != NULL ? atoi(at) : -1;
    return cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(cpu, &allowed) ? cpu : -1;
}

/// Whether a thread of this process runs, or wants to.
static int wants_to_run(pid_t thread) {
    char text[1024], *at = status(thread, text, sizeof text);
    return at != NULL && *at == 'R';
}

static int any_wants_to_run(const struct lethefs_placement *place) {
    for (unsigned index = 0; index < place->count; index++)
        if (wants_to_run(place->threads[index])) return 1;
    return 0;
}

// The threads do not get on, or have nothing to do. The caller holds `lock`.
static void leave_to_others(struct lethefs_placement *place) {
    if (is_of_one_cpu(place)) return yield_to_others(place);
    atomic_store(&place->crowd, 0);
    scatter(place);
}

static void leave_quiet(struct lethefs_placement *place) {
    if (is_of_one_cpu(place)) return lift(place);
    scatter(place);
    // Whoever asks for something now and then is not followed each time.
    atomic_store(&place->until_look, LOOK_AT_CROWD);
}

// One look at a place that is watched. The caller holds `lock`.
static void look(struct lethefs_placement *place) {
    unsigned served = atomic_load(&place->served);
    int has_progress = served != place->seen;
    place->seen = served;
    if ((place->is_low && is_crowded(others_running())) || (!has_progress && any_wants_to_run(place))) {
        place->quiet = 0;
        if (++place->wanted == WANTED) leave_to_others(place);
    } else {
        place->wanted = 0;
        place->quiet = has_progress ? 0 : place->quiet + 1;
        if (place->quiet == QUIET) leave_quiet(place);
    }
}

static void *watch(void *unused) {
    (void)unused;
    const struct timespec pause = {0, LOOK_NS};
    pthread_mutex_lock(&lock);
    for (;;) {
        while (watched == 0) pthread_cond_wait(&watching, &lock);
        pthread_mutex_unlock(&lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&lock);
        for (struct lethefs_placement *place = all; place != NULL; place = place->next)
            if (place->is_watched) look(place);
    }
    return NULL;
}

// The caller holds `lock`. The watcher begins with the policy and the CPUs of the thread that makes it: one that is not gathered.
static int start_watcher(void) {
    if (has_watcher) return 1;
    const struct lethefs_thread how = {.stack = STACK, .is_detached = 1};
    has_watcher = lethefs_start_thread(how, NULL, watch, NULL) == 0;
    return has_watcher;
}

// The caller holds `lock`.
static void gather(struct lethefs_placement *place, int cpu) {
    // A /proc that shows no others' processes, or a program in another PID name space; a CPU that is not ours.
    int result = cpu >= 0 && CPU_ISSET(cpu, &allowed) && start_watcher(), is_low = 0;
    if (result && is_of_one_cpu(place)) {
        // The calling thread is one that gathers.
        if (is_crowded(others_running() + 1)) yield_to_others(place);
        is_low = lethefs_now() >= atomic_load(&place->not_before);
    }
    place->seen = atomic_load(&place->served) - 1;
    place->wanted = place->quiet = 0;
    if (result && settle(place, cpu, is_low)) {
        pthread_cond_signal(&watching);
    } else {
        atomic_store(&place->spread, AT_FIRST);
        scatter(place);
    }
}

static void stop_following(struct lethefs_placement *place) {
    begin_change(place);
    scatter(place);
    end_change(place);
}

// For a queue of all CPUs: whether two of them are idle mostly, one for the program and one for the thread that serves it.
static int has_room(struct lethefs_placement *place, int is_home, int serving) {
    int crowd = atomic_load_explicit(&place->crowd, memory_order_relaxed);
    // The program waits.
    int is_full = others_running() - (serving - 1) >= processors - 1;
    crowd = is_full ? (crowd < CROWD ? crowd + 1 : CROWD) : (crowd > 0 ? crowd - 1 : 0);
    atomic_store_explicit(&place->crowd, crowd, memory_order_relaxed);
    return is_home ? crowd <= CROWD_SCATTERS : crowd < CROWD_GATHERS;
}

// Looks where the program is.
static void follow(struct lethefs_placement *place, pid_t program, int is_home, int serving) {
    if (is_of_one_cpu(place)) {
        if (!may_be_low) return;
    } else if (has_room(place, is_home, serving)) {
        if (is_home) stop_following(place);
        atomic_store_explicit(&place->until_look, LOOK_AT_CROWD, memory_order_relaxed);
        return;
    }
    int cpu = is_of_one_cpu(place) ? place->fixed : cpu_of(program);
    int is_there = cpu >= 0 && cpu == atomic_load_explicit(&place->home, memory_order_relaxed);
    int until = is_of_one_cpu(place) ? (is_there ? LOOK_LATER : LOOK_SOON) : LOOK_AT_CROWD;
    atomic_store_explicit(&place->until_look, until, memory_order_relaxed);
    if (is_there && (!is_of_one_cpu(place) || place->is_low || lethefs_now() < atomic_load(&place->not_before))) return;
    begin_change(place);
    gather(place, cpu);
    end_change(place);
}

static int is_recent(struct lethefs_placement *place, pid_t program) {
    for (int index = 0; index < 4; index++)
        if (atomic_load_explicit(&place->recent[index], memory_order_relaxed) == program) return 1;
    unsigned next = atomic_fetch_add_explicit(&place->next_recent, 1, memory_order_relaxed);
    atomic_store_explicit(&place->recent[next % 4], program, memory_order_relaxed);
    return 0;
}

// The disk does it, or it is so much that another CPU had better do it.
static int takes_time(const struct fuse_in_header *request, size_t length) {
    if (request->opcode == FUSE_FSYNC || request->opcode == FUSE_FSYNCDIR || length >= LARGE) return 1;
    if (request->opcode != FUSE_READ || length < sizeof *request + sizeof(struct fuse_read_in)) return 0;
    return ((const struct fuse_read_in *)(request + 1))->size >= LARGE;
}

void lethefs_placement_note(
    struct lethefs_placement *place, const struct fuse_in_header *request, size_t length, int serving) {
    if (!usable) return;
    atomic_fetch_add_explicit(&place->served, 1, memory_order_relaxed);
    switch (request->opcode) {
    case FUSE_FORGET: case FUSE_BATCH_FORGET: case FUSE_INTERRUPT: case FUSE_RELEASE: case FUSE_RELEASEDIR: return;
    default: break;
    }
    int is_home = atomic_load_explicit(&place->home, memory_order_relaxed) >= 0;
    pid_t program = (pid_t)request->pid;
    if (takes_time(request, length)) {
        atomic_store_explicit(&place->spread, HIGHEST, memory_order_relaxed);
        if (is_home) stop_following(place);
        return;
    }
    // What the kernel asks for on its own account.
    if (program == 0) return;
    int spread = atomic_load_explicit(&place->spread, memory_order_relaxed);
    if (atomic_exchange_explicit(&place->last, program, memory_order_relaxed) == program)
        spread = spread > 0 ? spread - 1 : 0;
    else if (is_recent(place, program))
        spread = spread + ALTERNATES < HIGHEST ? spread + ALTERNATES : HIGHEST;
    atomic_store_explicit(&place->spread, spread, memory_order_relaxed);
    if (is_home && spread >= LEAVE)
        stop_following(place);
    else if ((is_home || spread == 0) && atomic_fetch_sub_explicit(&place->until_look, 1, memory_order_relaxed) <= 0)
        follow(place, program, is_home, serving);
}

void lethefs_placement_join(struct lethefs_placement *place) {
    if (!usable) return;
    // It has begun as the thread was that made it.
    begin_change(place);
    if (place->count < LETHEFS_PLACED_THREADS) place->threads[place->count++] = gettid();
    put(place, gettid());
    end_change(place);
}

void lethefs_placement_leave(struct lethefs_placement *place) {
    if (!usable) return;
    begin_change(place);
    for (unsigned index = 0; index < place->count; index++) {
        if (place->threads[index] != gettid()) continue;
        place->threads[index] = place->threads[--place->count];
        break;
    }
    pthread_mutex_unlock(&lock);
}

void lethefs_placement_end(struct lethefs_placement *place) {
    pthread_mutex_lock(&lock);
    scatter(place);
    for (struct lethefs_placement **at = &all; *at != NULL; at = &(*at)->next) {
        if (*at != place) continue;
        *at = place->next;
        break;
    }
    pthread_mutex_unlock(&lock);
}
