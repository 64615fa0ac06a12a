// Keeps the threads that serve on the CPU of the program that waits for them, while one program at a time asks for little.
//
// Left to itself the scheduler wakes whoever was woken on an idle CPU: the thread that serves, then the program, and both wake-ups go to
// another processor each time. In a virtual machine that may cost many times what serving does (`bench/pair` tells how many).
//
// *Queues of a CPU* (io_uring): where requests come one after the other, the threads *gather* on the program's CPU, and take the policy
// SCHED_IDLE: a CPU that runs nothing else counts as free, so the program that a reply wakes stays where it was. A thread with SCHED_IDLE hardly
// runs beside others that want its CPU. So a watcher looks every millisecond, and lifts them to SCHED_OTHER when
// others want all CPUs, when they do not get on, and when there is nothing to do: they never wait with that policy while nobody looks. Where no
// CPU is idle, the program stays where it was anyway.
//
// *A queue of all CPUs* (/dev/fuse): a program that runs before the thread that has answered it has come back to read(2) finds another thread, so
// SCHED_IDLE brings more switches than it saves; and what no program waits for (release, forget) is better done elsewhere. So the threads gather only
// where others leave no two CPUs idle, and keep their policy. The watcher scatters them when they do not get on there.
#pragma once
#include <linux/fuse.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/types.h>

enum { LETHEFS_PLACED_THREADS = 64 };

/// Threads that take requests from one queue. Zeroed, then `lethefs_placement_init`.
struct lethefs_placement {
    /// The CPU that the queue belongs to, or -1 where requests of all CPUs come.
    int fixed;
    /// Where the threads are gathered; -1: nowhere.
    _Atomic int home;
    /// 0 when requests come one by one; goes up with signs of the contrary.
    _Atomic int spread;
    _Atomic pid_t last;
    _Atomic pid_t recent[4];
    _Atomic unsigned next_recent;
    /// Looks that found hardly a CPU idle, less those that did not, within bounds.
    _Atomic int crowd;
    /// Requests until it is looked where the program is.
    _Atomic int until_look;
    /// Requests so far.
    _Atomic unsigned served;
    /// CLOCK_MONOTONIC nanoseconds before which it is not SCHED_IDLE: somebody else wants the CPUs.
    _Atomic long long not_before;
    /// They have SCHED_IDLE.
    _Atomic int is_low;
    // What follows is guarded by the lock of all of them.
    /// The watcher looks at it: the threads have SCHED_IDLE, or are gathered for a queue of all CPUs.
    int is_watched;
    long long pause;
    /// `served` as the watcher found it; how often it found since that others want the CPUs, and that there is nothing to do.
    unsigned seen;
    int wanted, quiet;
    unsigned count;
    pid_t threads[LETHEFS_PLACED_THREADS];
    struct lethefs_placement *next;
};

/// `cpu`: the queue's, or -1. Until `lethefs_placement_end`, which is called when all threads have left, it stays where it is.
void lethefs_placement_init(struct lethefs_placement *place, int cpu);
void lethefs_placement_end(struct lethefs_placement *place);

/// The calling thread begins, or ends, to take requests from the queue.
void lethefs_placement_join(struct lethefs_placement *place);
void lethefs_placement_leave(struct lethefs_placement *place);

/// Notes a request that the calling thread is about to serve; `length` as in the header. `serving`: threads of a queue of all CPUs that serve now,
/// with the calling one.
void lethefs_placement_note(
    struct lethefs_placement *place, const struct fuse_in_header *request, size_t length, int serving);
