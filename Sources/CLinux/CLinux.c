#include "CLinux.h"

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
