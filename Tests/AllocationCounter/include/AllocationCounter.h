#pragma once

/// Blocks that the calling thread has had from the heap so far; -1 where they cannot be counted (sanitizers have an allocator of their own).
long allocation_count(void);
