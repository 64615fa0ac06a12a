// Who is called when a worker of /dev/fuse has taken a request and nobody waits for the next one.
#pragma once
#include "WorkerPool.h"

/// Its request waits for something else than a processor, until `lethefs_monitor_unmark`.
void lethefs_monitor_mark_slow(struct lethefs_worker *worker);
void lethefs_monitor_unmark(struct lethefs_worker *worker);

/// This worker has taken a request, and nobody waits for the next one.
void lethefs_monitor_leave_nobody(void);

/// Without it each worker that leaves nobody waiting calls another.
void lethefs_monitor_start(void);
void lethefs_monitor_stop(void);
