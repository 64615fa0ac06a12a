// Preloaded under the thread sanitizer (Tests/sanitize thread): tells it of what the standard library's Mutex does out of its sight.
//
// Synchronization.Mutex takes and gives up an uncontended lock by atomic operations that are compiled into its users, which the sanitizer
// sees in an optimised build. A contended one it hands to the library's own _lockSlow and _unlockSlow, which are not instrumented.
// These stand before them, call them, and say what they have done. The names are of the ABI of libswiftSynchronization.so.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

extern void __tsan_acquire(void *) __attribute__((weak));
extern void __tsan_release(void *) __attribute__((weak));

#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context)) void *self

typedef SWIFT void (*lock_slow)(uint32_t, SELF);
typedef SWIFT void (*unlock_slow)(SELF);
typedef SWIFT bool (*try_lock_slow)(SELF);

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

SWIFT void lock(uint32_t thread, SELF) __asm__("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");
SWIFT void lock(uint32_t thread, SELF) {
    static lock_slow real;
    if (!real) real = (lock_slow)next("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");
    real(thread, self);
    if (__tsan_acquire) __tsan_acquire(self);
}

SWIFT void unlock(SELF) __asm__("$s15Synchronization12_MutexHandleV11_unlockSlowyyF");
SWIFT void unlock(SELF) {
    static unlock_slow real;
    if (!real) real = (unlock_slow)next("$s15Synchronization12_MutexHandleV11_unlockSlowyyF");
    if (__tsan_release) __tsan_release(self);
    real(self);
}

SWIFT bool try_lock(SELF) __asm__("$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF");
SWIFT bool try_lock(SELF) {
    static try_lock_slow real;
    if (!real) real = (try_lock_slow)next("$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF");
    bool taken = real(self);
    if (taken && __tsan_acquire) __tsan_acquire(self);
    return taken;
}
