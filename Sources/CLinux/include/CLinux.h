// Linux calls and constants that Swift cannot import as they are (variadic functions, casts in macros).
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static inline int linux_openat(int dirfd, const char *path, int flags, mode_t mode) {
    return openat(dirfd, path, flags, mode);
}
static inline int linux_renameat2(int olddirfd, const char *oldpath, int newdirfd, const char *newpath, unsigned flags) {
    return (int)syscall(SYS_renameat2, olddirfd, oldpath, newdirfd, newpath, flags);
}
static inline ssize_t linux_getdents64(int fd, void *buffer, size_t count) {
    return syscall(SYS_getdents64, fd, buffer, count);
}
static inline int linux_prctl(int option, unsigned long value) { return prctl(option, value, 0, 0, 0); }
static inline void linux_explicit_bzero(void *p, size_t n) { explicit_bzero(p, n); }
/// What a request, or a whole thread, uses of its stack is less.
enum { LINUX_STACK_USED = 64 << 10 };
/// Wipes so many bytes of the stack that functions called by the caller have used, and the vector registers: what was copied last lies in them
/// until something else does, and whatever saves them (the dynamic linker at a function's first call, a signal) puts it on a stack.
void linux_wipe_stack(size_t bytes);
/// Tells the processor that the thread looks at memory until another one changes it.
static inline void linux_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
static inline int linux_fcntl_int(int fd, int command, int argument) { return fcntl(fd, command, argument); }
static inline int linux_bind(int fd, const struct sockaddr *address, socklen_t size) { return bind(fd, address, size); }
static inline int linux_connect(int fd, const struct sockaddr *address, socklen_t size) { return connect(fd, address, size); }
static inline int linux_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_CLOEXEC); }
static inline int linux_open(const char *path, int flags, mode_t mode) { return open(path, flags, mode); }
static inline char *const *linux_environment(void) { extern char **environ; return environ; }
static inline void linux_default_signal(int number) { signal(number, SIG_DFL); }
static inline void linux_ignore_sigpipe(void) { signal(SIGPIPE, SIG_IGN); }
static inline int linux_memlock_limit(struct rlimit *limit) { return getrlimit(RLIMIT_MEMLOCK, limit); }
static inline int linux_nofile_limit(struct rlimit *limit) { return getrlimit(RLIMIT_NOFILE, limit); }
static inline int linux_set_nofile_limit(const struct rlimit *limit) { return setrlimit(RLIMIT_NOFILE, limit); }
static inline int linux_set_core_limit(const struct rlimit *limit) { return setrlimit(RLIMIT_CORE, limit); }
/// Two arenas, so that what one thread frees is near what another one needs, and memory can be given back.
static inline void linux_bound_heap(void) { mallopt(M_ARENA_MAX, 2); }
/// Gives free memory of the heap back to the system, also where all memory is locked. -1 and errno where it cannot be locked again: more
/// is mapped than may be locked.
int linux_trim_heap(void);
/// Bytes that malloc(3) has given out and not been given back.
size_t linux_heap_in_use(void);
/// Bytes of no file that are in memory (proc_pid_statm(5)); 0 where that cannot be read.
size_t linux_resident_anonymous(void);
/// All memory, now and later, page by page as it is touched. 0, or -1 and errno.
int linux_lock_all_memory(void);
/// nice(2) of the calling thread; -1 where that is not allowed.
static inline int linux_set_thread_nice(int nice) { return setpriority(PRIO_PROCESS, 0, nice); }
static inline int linux_get_errno(void) { return errno; }
static inline void linux_set_errno(int value) { errno = value; }
static inline int linux_memory_file(const char *name) { return (int)syscall(SYS_memfd_create, name, 1u /* CLOEXEC */ | 2u /* ALLOW_SEALING */); }
/// No one can make it shorter or longer any more.
static inline int linux_seal_size(int fd) { return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL); }
static inline int linux_close_from(unsigned first) { return (int)syscall(SYS_close_range, first, ~0u, 0u); }
static inline int linux_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0u); }
static inline int linux_pidfd_kill(int pidfd) { return (int)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0u); }
/// Makes `low` and `high` the permitted and effective capabilities of the calling thread; none is inherited. 0, or -1 and errno.
static inline int linux_set_capabilities(uint32_t low, uint32_t high) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{low, low, 0}, {high, high, 0}};
    return (int)syscall(SYS_capset, &header, data);
}
/// Word 0 or 1 of the calling thread's effective and permitted capabilities. 0, or -1 and errno.
static inline int linux_capabilities(int word, uint32_t *effective, uint32_t *permitted) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) != 0) return -1;
    *effective = data[word].effective;
    *permitted = data[word].permitted;
    return 0;
}

enum {
    LINUX_O_PATH = O_PATH,
    LINUX_O_TMPFILE = O_TMPFILE,
    LINUX_O_NOATIME = O_NOATIME,
    LINUX_AT_EMPTY_PATH = AT_EMPTY_PATH,
    LINUX_RENAME_NOREPLACE = 1,
    LINUX_RENAME_EXCHANGE = 2,
    LINUX_SEEK_DATA = SEEK_DATA,
    LINUX_SEEK_HOLE = SEEK_HOLE,
};
