#pragma once

/// Linked into the program, it wipes every block of the heap as the block is freed: names, values of attributes, link targets, PINs,
/// and what libraries copied of them are gone once nobody holds them. See heap.c.
///
/// 1, or 0 in a build for a sanitizer, which has an allocator of its own.
int lethefs_heap_is_wiped(void);
