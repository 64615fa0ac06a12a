// Wipes what is freed. The program's free and realloc go before the C library's, for every library that it loads as well
// (the C library's manual, “Replacing malloc”); the C library's own do the work.
//
// A block that moves as it grows is wiped where it was. What glibc takes from a block's end without moving it would stay, so none is made
// smaller in place.
#include "CHeap.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_OTHER_ALLOCATOR 1
#endif
#endif

// A sanitizer has an allocator of its own.
#ifndef HAS_OTHER_ALLOCATOR

void __libc_free(void *);

void free(void *block) {
    if (block == NULL) return;
    explicit_bzero(block, malloc_usable_size(block));
    __libc_free(block);
}

void *realloc(void *block, size_t size) {
    if (block == NULL) return malloc(size);
    if (size == 0) {
        free(block);
        return NULL;
    }
    size_t room = malloc_usable_size(block);
    if (size <= room && size >= room / 2) return block;
    void *moved = malloc(size);
    if (moved == NULL) return NULL;
    memcpy(moved, block, size < room ? size : room);
    free(block);
    return moved;
}

#endif
