// libfuse's low-level API, and what it does not offer by name.
#pragma once
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

/// What the kernel said with the request that this thread is serving, beyond what libfuse passes on.
enum lethefs_request_flags {
    /// FUSE_WRITE_KILL_SUIDGID, FATTR_KILL_SUIDGID or FUSE_OPEN_KILL_SUIDGID: the file system clears the set-ID bits.
    LETHEFS_KILL_SUIDGID = 1,
};
unsigned lethefs_request_flags(void);

/// Puts a layer between libfuse and /dev/fuse: it takes FUSE_HANDLE_KILLPRIV_V2 in the INIT reply (libfuse 3.14 has no name
/// for it; without it each write asks for security.capability), and notes the flags above. Call after mounting.
/// Returns 0, or a negative errno.
int lethefs_install_io(struct fuse_session *session);

/// FUSE_NOTIFY_INC_EPOCH (Linux 6.16): all cached names are looked up again before use. Returns 0, or a negative errno: -EINVAL where the
/// kernel does not know it.
int lethefs_notify_increment_epoch(struct fuse_session *session);

/// Gives the calling thread a file-system context of its own, once, and sets its umask.
void lethefs_set_thread_umask(mode_t mask);

/// fuse_session_loop_mt with clone_fd; `threads` workers at the most.
int lethefs_session_loop(struct fuse_session *session, unsigned threads);

/// The session's signal handlers (SIGHUP, SIGINT, SIGTERM end the loop; SIGPIPE is ignored).
static inline int lethefs_set_signal_handlers(struct fuse_session *session) { return fuse_set_signal_handlers(session); }
