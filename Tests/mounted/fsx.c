/* Random file operations compared with a model in memory.
 *
 *     fsx -s SEED -n OPERATIONS -t THREADS [-r REGION] [-l MAXIMUM] [-x punch,zero,copy] [-m MODELS] DIRECTORY
 *
 * Each thread works on a file of its own. With -r the threads share one file: each owns the regions of REGION bytes whose
 * number modulo THREADS is its own. Regions smaller than a page have neighbours of different threads within one page; then
 * mapped writes are left out: Linux (6.18) flushes a page before a hole is punched in it, and cuts it afterwards, but does
 * not keep mapped writers from dirtying it in between, so that the old bytes beside theirs are written back.
 * -m writes each model to MODELS/N at the end, for a comparison after a remount. Exit status 0: all agreed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum operation { READ, WRITE, MAP_READ, MAP_WRITE, TRUNCATE, PUNCH, ZERO, COPY, ALLOCATE, REOPEN, SYNC, APPEND, KINDS };
static const char *const names[KINDS] = {"read", "write", "mapread", "mapwrite", "truncate", "punch", "zero", "copy",
                                         "allocate", "reopen", "sync", "append"};
static const unsigned weights[KINDS] = {20, 25, 8, 8, 8, 6, 5, 5, 4, 4, 4, 3};

/* Operations remembered for the report of a difference. */
enum { LOG = 24 };
struct entry { enum operation kind; long long at, count, size; };

struct worker {
    pthread_t thread;
    unsigned number;
    unsigned long long random;
    char path[4096];
    int fd;
    unsigned char *model, *buffer;
    long long size;
    struct entry log[LOG];
    unsigned long done;
};

static unsigned long long seed = 1;
static unsigned long operations = 10000;
static unsigned threads = 1;
static long long regions;
static long long maximum = 3 << 20;
static int excluded[KINDS];
static const char *directory, *models;
static unsigned char *shared_model;
static _Thread_local struct worker *current;

static unsigned long long draw(struct worker *w) {
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random >> 11;
}
static long long below(struct worker *w, long long limit) { return limit > 0 ? (long long)(draw(w) % limit) : 0; }

static void fail(struct worker *w, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
static void fail(struct worker *w, const char *format, ...) {
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    va_list arguments;
    pthread_mutex_lock(&once);
    fprintf(stderr, "fsx: seed %llu, thread %u, operation %lu: ", seed, w->number, w->done);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "; the last operations:\n");
    for (unsigned long i = w->done > LOG ? w->done - LOG : 0; i < w->done; i++) {
        struct entry *e = &w->log[i % LOG];
        fprintf(stderr, "  %lu %s at %lld count %lld of %lld\n", i, names[e->kind], e->at, e->count, e->size);
    }
    exit(1);
}

/* Sizes and offsets lie near the edges of payloads, pages and requests. */
static long long edge(struct worker *w, long long limit) {
    static const long long steps[] = {4064, 4096, 3552, 131072, 1 << 20, 512};
    long long value;
    switch (draw(w) % 4) {
    case 0: value = below(w, limit); break;
    case 1: value = 3552 + below(w, limit / 4064 + 1) * 4064; break;
    default: { long long step = steps[draw(w) % 6]; value = below(w, limit / step + 1) * step; }
    }
    value += below(w, 5) - 2;
    return value < 0 ? 0 : value > limit ? limit : value;
}
static long long extent(struct worker *w) {
    static const long long lengths[] = {1, 31, 512, 3552, 4064, 4096, 8128, 65536, 131072, 1 << 20};
    long long count = draw(w) % 3 ? lengths[draw(w) % (draw(w) % 8 ? 7 : 10)] + below(w, 3) - 1 : below(w, 20000);
    return count < 1 ? 1 : count;
}

static void compare(struct worker *w, const unsigned char *got, long long at, long long count, const char *how) {
    for (long long i = 0; i < count; i++) {
        if (got[i] != w->model[at + i])
            fail(w, "%s: byte %lld of %lld is %02x, want %02x", how, at + i, w->size, got[i], w->model[at + i]);
    }
}

static void check_size(struct worker *w) {
    struct stat status;
    if (fstat(w->fd, &status) != 0) fail(w, "fstat: %s", strerror(errno));
    if (status.st_size != w->size) fail(w, "st_size is %lld, want %lld", (long long)status.st_size, w->size);
}

static void read_back(struct worker *w, long long at, long long count) {
    long long want = at >= w->size ? 0 : count < w->size - at ? count : w->size - at, got = 0;
    while (got < count) {
        ssize_t step = pread(w->fd, w->buffer + got, count - got, at + got);
        if (step < 0) fail(w, "pread at %lld: %s", at + got, strerror(errno));
        if (step == 0) break;
        got += step;
    }
    if (got != want) fail(w, "pread of %lld at %lld gave %lld, want %lld", count, at, got, want);
    compare(w, w->buffer, at, got, "read");
}

static void fill(struct worker *w, long long count) {
    for (long long i = 0; i < count; i += 8) {
        unsigned long long word = draw(w) | 1;
        memcpy(w->buffer + i, &word, count - i < 8 ? count - i : 8);
    }
}

static void write_all(struct worker *w, long long at, long long count, int append) {
    fill(w, count);
    if (append && lseek(w->fd, 0, SEEK_END) != w->size) fail(w, "SEEK_END: not at the end");
    for (long long done = 0; done < count;) {
        ssize_t step = append ? write(w->fd, w->buffer + done, count - done)
                              : pwrite(w->fd, w->buffer + done, count - done, at + done);
        if (step <= 0) fail(w, "write at %lld: %s", at + done, strerror(errno));
        done += step;
    }
    memcpy(w->model + at, w->buffer, count);
    if (at + count > w->size) w->size = at + count;
}

static void map(struct worker *w, long long at, long long count, int writing) {
    if (at >= w->size) return;
    if (count > w->size - at) count = w->size - at;
    long long page = at & ~4095LL;
    unsigned char *memory = mmap(NULL, at - page + count, PROT_READ | (writing ? PROT_WRITE : 0), MAP_SHARED, w->fd, page);
    if (memory == MAP_FAILED) fail(w, "mmap at %lld: %s", page, strerror(errno));
    if (writing) {
        fill(w, count);
        memcpy(memory + (at - page), w->buffer, count);
        memcpy(w->model + at, w->buffer, count);
        if (draw(w) % 4 == 0 && msync(memory, at - page + count, MS_SYNC)) fail(w, "msync: %s", strerror(errno));
    } else {
        compare(w, memory + (at - page), at, count, "mapped read");
    }
    munmap(memory, at - page + count);
}

static void truncate_to(struct worker *w, long long size) {
    if (ftruncate(w->fd, size)) fail(w, "ftruncate to %lld: %s", size, strerror(errno));
    if (size < w->size) memset(w->model + size, 0, w->size - size);
    w->size = size;
}

static void allocate(struct worker *w, int mode, long long at, long long count, int zero) {
    if (fallocate(w->fd, mode, at, count)) fail(w, "fallocate mode %d at %lld: %s", mode, at, strerror(errno));
    if (zero) memset(w->model + at, 0, count);
    if (!(mode & FALLOC_FL_KEEP_SIZE) && at + count > w->size) w->size = at + count;
}

static void copy(struct worker *w, long long at, long long count) {
    long long to = edge(w, maximum);
    if (at >= w->size) return;
    if (count > w->size - at) count = w->size - at;
    if (count > maximum - to) count = maximum - to;
    if (count <= 0 || (to < at + count && at < to + count)) return;
    for (long long done = 0; done < count;) {
        off_t from = at + done, target = to + done;
        ssize_t step = copy_file_range(w->fd, &from, w->fd, &target, count - done, 0);
        if (step <= 0) fail(w, "copy_file_range: %s", step ? strerror(errno) : "nothing copied");
        done += step;
    }
    memcpy(w->model + to, w->model + at, count);
    if (to + count > w->size) w->size = to + count;
}

static void open_file(struct worker *w, int flags) {
    w->fd = open(w->path, O_RDWR | flags, 0600);
    if (w->fd < 0) fail(w, "open: %s", strerror(errno));
}

static void reopen(struct worker *w) {
    if (draw(w) % 2) posix_fadvise(w->fd, 0, 0, POSIX_FADV_DONTNEED);
    if (close(w->fd)) fail(w, "close: %s", strerror(errno));
    open_file(w, 0);
}

static enum operation choose(struct worker *w) {
    for (;;) {
        unsigned total = 0, at;
        for (int kind = 0; kind < KINDS; kind++) total += weights[kind];
        at = draw(w) % total;
        for (int kind = 0; kind < KINDS; kind++) {
            if (at < weights[kind]) { if (excluded[kind]) break; return kind; }
            at -= weights[kind];
        }
    }
}

static void operate(struct worker *w) {
    enum operation kind = choose(w);
    long long at = kind == APPEND ? w->size : edge(w, draw(w) % 4 ? w->size : maximum - 1), count = extent(w);
    if (count > maximum - at) count = maximum - at;
    w->log[w->done % LOG] = (struct entry){kind, at, count, w->size};
    w->done++;
    if (count <= 0) return;
    switch (kind) {
    case READ: read_back(w, at, count); break;
    case WRITE: write_all(w, at, count, 0); break;
    case APPEND: write_all(w, at, count, 1); break;
    case MAP_READ: map(w, at, count, 0); break;
    case MAP_WRITE: map(w, at, count, 1); break;
    case TRUNCATE: truncate_to(w, at); break;
    case PUNCH: allocate(w, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, count, 1); break;
    case ZERO: allocate(w, FALLOC_FL_ZERO_RANGE | (draw(w) % 2 && at + count <= w->size ? FALLOC_FL_KEEP_SIZE : 0), at,
                        count, 1); break;
    case ALLOCATE: allocate(w, draw(w) % 2 ? FALLOC_FL_KEEP_SIZE : 0, at, count, 0); break;
    case COPY: copy(w, at, count); break;
    case REOPEN: reopen(w); break;
    case SYNC: if (draw(w) % 2 ? fsync(w->fd) : fdatasync(w->fd)) fail(w, "fsync: %s", strerror(errno)); break;
    case KINDS: break;
    }
    check_size(w);
}

/* One operation on regions of a shared file that belong to this thread; the file's size stays. */
static void operate_on_region(struct worker *w) {
    long long count = maximum / regions / threads, region = below(w, count) * threads + w->number;
    long long at = region * regions + below(w, regions), length = 1 + below(w, regions - at % regions);
    static const enum operation kinds[] = {READ, WRITE, WRITE, MAP_READ, MAP_WRITE, PUNCH, SYNC, REOPEN};
    enum operation kind = kinds[draw(w) % 8];
    if (kind == MAP_WRITE && regions % sysconf(_SC_PAGESIZE)) kind = WRITE;
    w->log[w->done % LOG] = (struct entry){kind, at, length, w->size};
    w->done++;
    switch (kind) {
    case WRITE: write_all(w, at, length, 0); break;
    case MAP_READ: map(w, at, length, 0); break;
    case MAP_WRITE: map(w, at, length, 1); break;
    case PUNCH: if (!excluded[PUNCH]) allocate(w, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length, 1); break;
    case SYNC: if (draw(w) % 8 == 0 && fsync(w->fd)) fail(w, "fsync: %s", strerror(errno)); break;
    case REOPEN: if (draw(w) % 8 == 0) reopen(w); break;
    default: read_back(w, at, length);
    }
}

/* A mapped page that cannot be read or written. The process ends here, so stdio in a handler does no harm. */
static void bus_error(int number) {
    (void)number;
    fail(current, "SIGBUS in a mapping");
}

static void *work(void *argument) {
    struct worker *w = current = argument;
    if (!(w->buffer = malloc(maximum + 8))) fail(w, "no memory");
    open_file(w, O_CREAT);
    while (w->done < operations) regions ? operate_on_region(w) : operate(w);
    return NULL;
}

static void start(struct worker *w, unsigned number) {
    w->number = number;
    w->random = (seed * 0x9E3779B97F4A7C15ULL + number * 0xBF58476D1CE4E5B9ULL) | 1;
    snprintf(w->path, sizeof w->path, "%s/%u", directory, regions ? 0 : number);
    if (regions) w->size = maximum;
    w->model = regions ? shared_model : calloc(1, maximum + 8);
    for (int i = 0; i < 8; i++) draw(w);
    if (!w->model || pthread_create(&w->thread, NULL, work, w)) fail(w, "cannot start");
}

static void finish(struct worker *w) {
    reopen(w);
    read_back(w, 0, w->size);
    check_size(w);
    if (models) {
        char path[4200];
        snprintf(path, sizeof path, "%s/%u", models, w->number);
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(w->model, 1, w->size, file) != (size_t)w->size || fclose(file)) fail(w, "cannot store the model");
    }
    close(w->fd);
}

static void exclude(char *list) {
    for (char *word = strtok(list, ","); word; word = strtok(NULL, ","))
        for (int kind = 0; kind < KINDS; kind++)
            if (!strcmp(word, names[kind])) excluded[kind] = 1;
}

int main(int count, char **arguments) {
    for (int option; (option = getopt(count, arguments, "s:n:t:l:x:m:r:")) != -1;) {
        switch (option) {
        case 's': seed = strtoull(optarg, NULL, 10); break;
        case 'n': operations = strtoul(optarg, NULL, 10); break;
        case 't': threads = strtoul(optarg, NULL, 10); break;
        case 'l': maximum = strtoll(optarg, NULL, 10); break;
        case 'x': exclude(optarg); break;
        case 'm': models = optarg; break;
        case 'r': regions = strtoll(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    if (optind != count - 1 || !threads) return 2;
    signal(SIGBUS, bus_error);
    directory = arguments[optind];
    struct worker *workers = calloc(threads, sizeof *workers);
    if (regions) {
        char path[4200];
        snprintf(path, sizeof path, "%s/0", directory);
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        shared_model = calloc(1, maximum + 8);
        if (!workers || !shared_model || fd < 0 || ftruncate(fd, maximum) || close(fd)) return 2;
    }
    for (unsigned i = 0; i < threads; i++) start(&workers[i], i);
    for (unsigned i = 0; i < threads; i++) pthread_join(workers[i].thread, NULL);
    for (unsigned i = 0; i < (regions ? 1 : threads); i++) finish(&workers[i]);
    printf("seed %llu: %u threads, %lu operations each\n", seed, threads, operations);
    return 0;
}
