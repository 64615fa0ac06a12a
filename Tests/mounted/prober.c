// Programs that go on reading and writing while a zone is revoked: a thread for each way to the data.
// usage: prober DIRECTORY      with the files that harness/scene.py makes there
// Standard input: "r" prints a line for each way, "NAME last-success successes failures errno", then ".": times are CLOCK_MONOTONIC
// nanoseconds, 0 for never. End of input ends it.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define RECORD 64
#define PAGE 4096

struct way {
    const char *name;
    int (*run)(struct way *);   // 0, or an errno
    unsigned pause_us;
    _Atomic int64_t last;
    _Atomic long good, bad;
    _Atomic int error;
    int fd;
    volatile char *map;
    size_t size;
    uint64_t count;
    unsigned seed;
};

static const char *root;
static __thread sigjmp_buf *volatile landing;

static void on_bus(int number) {
    (void)number;
    if (landing) siglongjmp(*landing, 1);
    _exit(3);
}

static char *path_of(const char *name) {
    static __thread char text[4096];
    snprintf(text, sizeof text, "%s/%s", root, name);
    return text;
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int must_open(const char *name, int flags) {
    int fd = open(path_of(name), flags, 0644);
    if (fd < 0) { perror(path_of(name)); exit(2); }
    return fd;
}

static int read_cached(struct way *way) {
    char byte;
    off_t at = (off_t)(rand_r(&way->seed) % (way->size / PAGE)) * PAGE;
    return pread(way->fd, &byte, 1, at) == 1 ? 0 : errno;
}

static int read_mapped(struct way *way) {
    sigjmp_buf here;
    size_t at = (size_t)(rand_r(&way->seed) % (way->size / PAGE)) * PAGE;
    if (sigsetjmp(here, 1)) { landing = NULL; return EFAULT; }
    landing = &here;
    char byte = way->map[at];
    landing = NULL;
    (void)byte;
    return 0;
}

static int read_new(struct way *way) {
    char name[64], byte;
    snprintf(name, sizeof name, "small/%u", rand_r(&way->seed) % 100);
    int fd = open(path_of(name), O_RDONLY);
    if (fd < 0) return errno;
    int error = read(fd, &byte, 1) == 1 ? 0 : errno;
    close(fd);
    return error;
}

static int read_directory(struct way *way) {
    (void)way;
    DIR *directory = opendir(path_of("small"));
    if (!directory) return errno;
    errno = 0;
    int error = readdir(directory) && readdir(directory) && readdir(directory) ? 0 : errno ? errno : ENOENT;
    closedir(directory);
    return error;
}

static int read_open_directory(struct way *way) {
    DIR *directory = (DIR *)way->map;
    rewinddir(directory);
    errno = 0;
    return readdir(directory) && readdir(directory) && readdir(directory) ? 0 : errno ? errno : ENOENT;
}

static int read_attribute(struct way *way) {
    (void)way;
    char value[64];
    return getxattr(path_of("attr"), "user.secret", value, sizeof value) > 0 ? 0 : errno;
}

static int read_link(struct way *way) {
    (void)way;
    char target[256];
    return readlink(path_of("link"), target, sizeof target) > 0 ? 0 : errno;
}

static int read_direct(struct way *way) {
    static __thread char *buffer;
    if (!buffer && posix_memalign((void **)&buffer, PAGE, PAGE)) return ENOMEM;
    return pread(way->fd, buffer, PAGE, 0) == PAGE ? 0 : errno;
}

static int read_status(struct way *way) {
    (void)way;
    struct stat info;
    return stat(path_of("cached"), &info) == 0 ? 0 : errno;
}

// Records one after the other: what was acknowledged is counted, and the count is in the record.
static int append_record(struct way *way) {
    char record[RECORD];
    memset(record, 'r', sizeof record);
    snprintf(record, sizeof record, "%020llu", (unsigned long long)way->count);
    ssize_t done = write(way->fd, record, sizeof record);
    if (done != sizeof record) return done < 0 ? errno : EIO;
    way->count++;
    return 0;
}

static int append_synced(struct way *way) {
    int error = append_record(way);
    if (error) return error;
    if (fdatasync(way->fd) == 0) return 0;
    way->count--;   // Not acknowledged: it may be there or not.
    error = errno;
    lseek(way->fd, (off_t)way->count * RECORD, SEEK_SET);
    return error;
}

// Whole pages, which the kernel takes into its cache without asking.
static int write_page(struct way *way) {
    uint64_t page[PAGE / 8];
    for (size_t i = 0; i < PAGE / 8; i++) page[i] = way->count + 1;
    ssize_t done = pwrite(way->fd, page, PAGE, (off_t)(way->count % 16384) * PAGE);
    if (done != PAGE) return done < 0 ? errno : EIO;
    way->count++;
    return 0;
}

static void *serve(void *argument) {
    struct way *way = argument;
    while (1) {
        int error = way->run(way);
        if (error) {
            way->error = error;
            way->bad++;
            usleep(1000);
        } else {
            way->last = now();
            way->good++;
        }
        if (way->pause_us) usleep(way->pause_us);
    }
    return NULL;
}

static volatile char *mapped(int fd, size_t size, int flags) {
    char *map = mmap(NULL, size, PROT_READ, flags, fd, 0);
    if (map == MAP_FAILED) { perror("mmap"); exit(2); }
    for (size_t at = 0; at < size; at += PAGE) (void)*(volatile char *)(map + at);
    return map;
}

int main(int argc, char **argv) {
    if (argc != 2) return 64;
    root = argv[1];
    struct sigaction action = {.sa_handler = on_bus, .sa_flags = SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    int cached = must_open("cached", O_RDONLY);
    struct stat info;
    fstat(cached, &info);
    size_t size = (size_t)info.st_size;
    struct way ways[] = {
        {"cached", read_cached, 200, .fd = cached, .size = size},
        {"mapped-shared", read_mapped, 200, .map = mapped(cached, size, MAP_SHARED), .size = size},
        {"mapped-private", read_mapped, 200, .map = mapped(cached, size, MAP_PRIVATE), .size = size},
        {"mapped-locked", read_mapped, 200, .map = mapped(must_open("locked", O_RDONLY), 16 * PAGE, MAP_SHARED), .size = 16 * PAGE},
        {"open", read_new, 200},
        {"directory", read_directory, 500},
        {"open-directory", read_open_directory, 500, .map = (volatile char *)opendir(path_of("small"))},
        {"attribute", read_attribute, 200},
        {"link", read_link, 200},
        {"direct", read_direct, 200, .fd = must_open("cached", O_RDONLY | O_DIRECT)},
        {"status", read_status, 200},
        {"append", append_record, 100, .fd = must_open("append", O_WRONLY | O_CREAT | O_TRUNC)},
        {"synced", append_synced, 100, .fd = must_open("synced", O_WRONLY | O_CREAT | O_TRUNC)},
        {"pages", write_page, 100, .fd = must_open("pages", O_WRONLY | O_CREAT | O_TRUNC)},
    };
    int count = sizeof ways / sizeof *ways;
    if (mlock((void *)ways[3].map, ways[3].size) != 0) { perror("mlock"); return 2; }
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        ways[i].seed = (unsigned)i + 1;
        if (pthread_create(&thread, NULL, serve, &ways[i]) != 0) return 2;
    }
    char line[16];
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        for (int i = 0; i < count; i++)
            printf("%s %lld %ld %ld %d\n", ways[i].name, (long long)ways[i].last, ways[i].good, ways[i].bad, ways[i].error);
        printf(".\n");
        fflush(stdout);
    }
    _exit(0);
}
