// libfuse's low-level API, and what it does not offer by name.
#pragma once
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <stddef.h>
#include <stdint.h>

/// What the kernel said with the request that this thread is serving, beyond what libfuse passes on.
enum lethefs_request_flags {
    /// FUSE_WRITE_KILL_SUIDGID, FATTR_KILL_SUIDGID or FUSE_OPEN_KILL_SUIDGID: the file system clears the set-ID bits.
    LETHEFS_KILL_SUIDGID = 1,
};
unsigned lethefs_request_flags(void);

/// Puts a layer between libfuse and /dev/fuse: it takes FUSE_HANDLE_KILLPRIV_V2 in the INIT reply (libfuse 3.14 has no name
/// for it; without it each write asks for security.capability), and notes the flags above. Call after mounting.
/// With `wants_ring` it takes FUSE over io_uring, too, where the kernel offers it and all that it needs can be had.
/// Returns 0, or a negative errno.
int lethefs_install_io(struct fuse_session *session, int wants_ring);

/// How requests come, and if not by io_uring, why not.
enum lethefs_transport_reason {
    LETHEFS_RING_USED = 0,
    /// Somebody asked for /dev/fuse.
    LETHEFS_RING_NOT_WANTED,
    /// The kernel is older than Linux 6.14, or built without it.
    LETHEFS_RING_NOT_KNOWN,
    /// The module parameter enable_uring does not read Y.
    LETHEFS_RING_SWITCHED_OFF,
    /// The fusectl file system is not there. A guardian needs it then: what a dead daemon had taken from a ring, nothing but an abort of the
    /// connection ends.
    LETHEFS_RING_NO_FUSECTL,
    /// No io_uring for this process: the errno says why.
    LETHEFS_RING_NO_IO_URING,
    /// INIT came without it.
    LETHEFS_RING_NOT_OFFERED,
    /// Rings, memory or threads could not be had: the errno says why.
    LETHEFS_RING_SETUP_FAILED,
};

/// Whether FUSE over io_uring can be tried here: LETHEFS_RING_USED, or why not, with its errno.
int lethefs_ring_probe(int *error);

/// One of lethefs_transport_reason, with its errno. Settled when the kernel has been answered INIT.
int lethefs_transport(int *error);

/// Where `wanted` bytes of the reply to the request that this thread is serving will lie, if that is known: what is put there needs no copy, and
/// is wiped whether or not it is sent. A page before it and two after it may be used as well. NULL otherwise.
void *lethefs_reply_space(size_t wanted);

/// Zeroes the memory in which requests came, and replies by io_uring, once each thread has answered what it has. 0, or -ETIMEDOUT when a
/// thread is still busy after two seconds. Called from a thread that serves no request.
int lethefs_wipe_requests(void);

/// Notes what libfuse does not pass on of a request that this thread is about to serve.
void lethefs_note_request(const void *buffer, size_t length);

/// FUSE_NOTIFY_INC_EPOCH (Linux 6.16): all cached names are looked up again before use. Returns 0, or a negative errno: -EINVAL where the
/// kernel does not know it.
int lethefs_notify_increment_epoch(struct fuse_session *session);

/// The guardian's calls on a duplicate of the /dev/fuse descriptor; without a session.
///
/// FUSE_NOTIFY_INVAL_INODE of all pages of a node. Returns 0, or a negative errno: -ENOENT where the kernel does not know the node.
int lethefs_device_purge(int device, uint64_t node);
/// Whether the kernel knows a node, without touching its pages: the same returns.
int lethefs_device_knows(int device, uint64_t node);
/// FUSE_NOTIFY_INC_EPOCH. Returns 0, or a negative errno.
int lethefs_device_expire_names(int device);
/// This process and its threads-to-be go before all others that have no real-time priority; root may ask for it.
void lethefs_raise_priority(void);
/// Reads one request and answers it with an error. `length`: at least the largest request. Returns 0, or a negative errno: -ENODEV once
/// the connection is over.
int lethefs_device_refuse(int device, void *buffer, size_t length);

/// Gives the calling thread a file-system context of its own, once, and sets its umask.
void lethefs_set_thread_umask(mode_t mask);

/// Serves until the kernel has agreed on the protocol, or the mount or the session ends: from then on it is known how requests come.
/// Returns 0, or a negative errno.
int lethefs_session_begin(struct fuse_session *session);

/// After `lethefs_session_begin`: the descriptors that the loop has open, or will have with `threads` workers.
int lethefs_transport_descriptors(unsigned threads);

/// After `lethefs_session_begin`, whatever came of it: serves until the mount or the session ends, over io_uring, or on /dev/fuse by at
/// most `threads` workers.
int lethefs_session_loop(struct fuse_session *session, unsigned threads);

/// The session's signal handlers (SIGHUP, SIGINT, SIGTERM end the loop; SIGPIPE is ignored).
static inline int lethefs_set_signal_handlers(struct fuse_session *session) { return fuse_set_signal_handlers(session); }
