#include "CLinux.h"

__attribute__((noinline)) static void wipe_stack(size_t bytes) {
    unsigned char below[bytes];
    explicit_bzero(below, bytes);
}

// All of them belong to the caller of a function, but the lower halves of v8 to v15 on ARM, which the clobbers have saved and restored.
static void wipe_vectors(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        __asm__ volatile(
            "vzeroall\n"
            "vpxord %%zmm16, %%zmm16, %%zmm16\n vpxord %%zmm17, %%zmm17, %%zmm17\n vpxord %%zmm18, %%zmm18, %%zmm18\n vpxord %%zmm19, %%zmm19, %%zmm19\n"
            "vpxord %%zmm20, %%zmm20, %%zmm20\n vpxord %%zmm21, %%zmm21, %%zmm21\n vpxord %%zmm22, %%zmm22, %%zmm22\n vpxord %%zmm23, %%zmm23, %%zmm23\n"
            "vpxord %%zmm24, %%zmm24, %%zmm24\n vpxord %%zmm25, %%zmm25, %%zmm25\n vpxord %%zmm26, %%zmm26, %%zmm26\n vpxord %%zmm27, %%zmm27, %%zmm27\n"
            "vpxord %%zmm28, %%zmm28, %%zmm28\n vpxord %%zmm29, %%zmm29, %%zmm29\n vpxord %%zmm30, %%zmm30, %%zmm30\n vpxord %%zmm31, %%zmm31, %%zmm31\n" ::
                : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    else if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroall" ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    else
        __asm__ volatile(
            "pxor %%xmm0, %%xmm0\n pxor %%xmm1, %%xmm1\n pxor %%xmm2, %%xmm2\n pxor %%xmm3, %%xmm3\n pxor %%xmm4, %%xmm4\n pxor %%xmm5, %%xmm5\n"
            "pxor %%xmm6, %%xmm6\n pxor %%xmm7, %%xmm7\n pxor %%xmm8, %%xmm8\n pxor %%xmm9, %%xmm9\n pxor %%xmm10, %%xmm10\n pxor %%xmm11, %%xmm11\n"
            "pxor %%xmm12, %%xmm12\n pxor %%xmm13, %%xmm13\n pxor %%xmm14, %%xmm14\n pxor %%xmm15, %%xmm15\n" ::
                : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
#elif defined(__aarch64__)
    __asm__ volatile(
        "movi v0.2d, #0\n movi v1.2d, #0\n movi v2.2d, #0\n movi v3.2d, #0\n movi v4.2d, #0\n movi v5.2d, #0\n movi v6.2d, #0\n movi v7.2d, #0\n"
        "movi v8.2d, #0\n movi v9.2d, #0\n movi v10.2d, #0\n movi v11.2d, #0\n movi v12.2d, #0\n movi v13.2d, #0\n movi v14.2d, #0\n movi v15.2d, #0\n"
        "movi v16.2d, #0\n movi v17.2d, #0\n movi v18.2d, #0\n movi v19.2d, #0\n movi v20.2d, #0\n movi v21.2d, #0\n movi v22.2d, #0\n movi v23.2d, #0\n"
        "movi v24.2d, #0\n movi v25.2d, #0\n movi v26.2d, #0\n movi v27.2d, #0\n movi v28.2d, #0\n movi v29.2d, #0\n movi v30.2d, #0\n movi v31.2d, #0\n" ::
            : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15",
              "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
#endif
}

void linux_wipe_stack(size_t bytes) {
    wipe_stack(bytes);
    wipe_vectors();
}

static int all_is_locked;

int linux_lock_all_memory(void) {
    int result = mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
    if (result == 0) all_is_locked = 1;
    return result;
}

// An arena but the first lies in mappings that begin at multiples of this: HEAP_MAX_SIZE of malloc/arena.c, glibc on 64 bits.
#define ARENA (64UL << 20)

// Where malloc(3) has its arenas: the heap, and anonymous mappings with an arena's address in them. Others with it do no harm.
static void unlock_arenas(void) {
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) return;
    char line[512];
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long start, end, inode;
        char flags[5], path[256] = "";
        if (sscanf(line, "%lx-%lx %4s %*x %*s %lu %255s", &start, &end, flags, &inode, path) < 4) continue;
        if (strcmp(flags, "rw-p") != 0 || inode != 0) continue;
        unsigned long arena = (start + ARENA - 1) & ~(ARENA - 1);
        if (strcmp(path, "[heap]") == 0) arena = start;
        else if (path[0] != 0) continue;
        if (arena < end) munlock((void *)arena, end - arena);
    }
    fclose(maps);
}

// madvise(MADV_DONTNEED), by which malloc_trim(3) gives pages back, fails on locked memory. So the arenas are unlocked for that moment, some
// milliseconds; keys lie in mappings of their own, which stay locked.
int linux_trim_heap(void) {
    if (all_is_locked) unlock_arenas();
    malloc_trim(0);
    return all_is_locked ? linux_lock_all_memory() : 0;
}

size_t linux_heap_in_use(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

size_t linux_resident_anonymous(void) {
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm == NULL) return 0;
    unsigned long resident = 0, shared = 0;
    int read = fscanf(statm, "%*u %lu %lu", &resident, &shared);
    fclose(statm);
    return read == 2 && resident > shared ? (resident - shared) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}
