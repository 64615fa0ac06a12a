// Keeps the threads that serve on the CPU of the program that waits for them, while one program at a time asks for little.
//
// Left to itself the scheduler wakes whoever was woken on an idle CPU: the thread that serves, then the program, and both wake-ups go to
// another processor each time. In a virtual machine that costs many times what serving does (PERFORMANCE.md has figures).
// So, where requests come one after the other, the threads follow the program by their affinity; and while a reply wakes it, the
// thread has the policy SCHED_IDLE, since a CPU that runs nothing else counts as free: the program stays where it was.
#pragma once
#include <linux/fuse.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/types.h>

/// Threads that take requests from one queue. Zeroed, then `lethefs_placement_init`.
struct lethefs_placement {
    /// The CPU that the queue belongs to, or -1 where requests of all CPUs come.
    int fixed;
    /// Where the threads are to be; -1: anywhere.
    _Atomic int home;
    /// 0 when requests come one by one; goes up with signs of the contrary.
    _Atomic int spread;
    _Atomic pid_t last;
    _Atomic pid_t recent[4];
    _Atomic unsigned next_recent;
    /// Requests until it is looked where the program is.
    _Atomic int until_look;
    /// The thread that has SCHED_IDLE; 0 for none.
    _Atomic pid_t lowered;
    /// CLOCK_MONOTONIC nanoseconds before which there is nothing to gain: somebody else wants the CPU.
    _Atomic long long not_before, pause;
};

/// `cpu`: the queue's, or -1.
void lethefs_placement_init(struct lethefs_placement *place, int cpu);

/// Notes a request that the calling thread is about to serve; `length` as in the header.
void lethefs_placement_note(struct lethefs_placement *place, const struct fuse_in_header *request, size_t length);

/// The calling thread goes where the others of its queue are to be. Called before it waits.
void lethefs_placement_settle(struct lethefs_placement *place);

/// Around the call that wakes the program. Between them nothing is done but that call. True when the thread has SCHED_IDLE: it must not
/// wait with it.
int lethefs_placement_begin_reply(struct lethefs_placement *place);
void lethefs_placement_end_reply(struct lethefs_placement *place);
