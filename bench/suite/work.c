// The measured loads of bench/run. Each prints one line of JSON: seconds and operations of each phase.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void check(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t seed;
static uint64_t next_random(void) {
    uint64_t z = seed += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

static char *buffer(size_t size) {
    char *bytes = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);
    check(bytes != NULL, "memory");
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t word = next_random();
        memcpy(bytes + i, &word, 8);
    }
    return bytes;
}

static void print(const char *name, double seconds, double operations) {
    printf("{\"%s\": {\"seconds\": %.6f, \"operations\": %.0f}}\n", name, seconds, operations);
}

// write PATH BYTES BLOCK [datasync]: sequentially, with close; with datasync after each block.
static void write_file(const char *path, size_t total, size_t block, int datasync) {
    char *bytes = buffer(block);
    double start = now();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    check(fd >= 0, path);
    for (size_t done = 0; done < total; done += block) {
        check(write(fd, bytes, block) == (ssize_t)block, "write");
        if (datasync) check(fdatasync(fd) == 0, "fdatasync");
    }
    check(close(fd) == 0, "close");
    print("write", now() - start, (double)(total / block));
}

// read PATH BLOCK: sequentially.
static void read_file(const char *path, size_t block) {
    char *bytes = buffer(block);
    double start = now();
    int fd = open(path, O_RDONLY);
    check(fd >= 0, path);
    size_t total = 0;
    ssize_t count;
    while ((count = read(fd, bytes, block)) > 0) total += count;
    check(count == 0, "read");
    close(fd);
    print("read", now() - start, (double)(total / block));
}

// map PATH: touches each page of a mapping in order.
static void map_file(const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat info;
    check(fd >= 0 && fstat(fd, &info) == 0, path);
    double start = now();
    char *bytes = mmap(NULL, info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    check(bytes != MAP_FAILED, "mmap");
    unsigned sum = 0;
    for (off_t at = 0; at < info.st_size; at += 4096) sum += (unsigned char)bytes[at];
    print(sum == 1 ? "map " : "map", now() - start, (double)(info.st_size / 4096));
}

// random DIRECTORY JOBS COUNT read|write: each job at its own file job-N, each 4 KiB block at most once, with close.
static void random_blocks(const char *directory, int jobs, size_t count, int writes) {
    int start_pipe[2];
    check(pipe(start_pipe) == 0, "pipe");
    for (int job = 0; job < jobs; job++) {
        if (fork() != 0) continue;
        char path[4096];
        snprintf(path, sizeof path, "%s/job-%d", directory, job);
        seed = job + 1;
        char *bytes = buffer(4096);
        int fd = open(path, writes ? O_RDWR : O_RDONLY);
        struct stat info;
        check(fd >= 0 && fstat(fd, &info) == 0, path);
        if (!writes) posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
        uint32_t blocks = info.st_size / 4096;
        uint32_t *order = malloc(blocks * sizeof *order);
        for (uint32_t i = 0; i < blocks; i++) order[i] = i;
        for (uint32_t i = blocks - 1; i > 0; i--) {
            uint32_t j = next_random() % (i + 1), kept = order[i];
            order[i] = order[j];
            order[j] = kept;
        }
        close(start_pipe[1]);
        char byte;
        if (read(start_pipe[0], &byte, 1) < 0) _exit(1);
        for (size_t i = 0; i < count && i < blocks; i++) {
            off_t at = (off_t)order[i] * 4096;
            check((writes ? pwrite(fd, bytes, 4096, at) : pread(fd, bytes, 4096, at)) == 4096, "transfer");
        }
        check(close(fd) == 0, "close");
        _exit(0);
    }
    close(start_pipe[0]);
    usleep(300000);
    double start = now();
    close(start_pipe[1]);
    int status;
    while (wait(&status) > 0) check(status == 0, "a job");
    print("random", now() - start, (double)jobs * count);
}

// files DIRECTORY COUNT PHASE: create (1 KiB each), stat, open (and read a byte), rename, unlink.
static void small_files(const char *directory, size_t count, const char *phase) {
    check(chdir(directory) == 0, directory);
    char name[64], other[64], *bytes = buffer(1024);
    struct stat info;
    double start = now();
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "file-%zu.txt", i);
        if (phase[0] == 'c') {
            int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
            check(fd >= 0 && write(fd, bytes, 1024) == 1024 && close(fd) == 0, name);
        } else if (phase[0] == 's') {
            check(stat(name, &info) == 0, name);
        } else if (phase[0] == 'o') {
            int fd = open(name, O_RDONLY);
            check(fd >= 0 && read(fd, bytes, 1) == 1 && close(fd) == 0, name);
        } else if (phase[0] == 'r') {
            snprintf(other, sizeof other, "renamed-%zu.txt", i);
            check(rename(name, other) == 0, name);
        } else {
            snprintf(other, sizeof other, "renamed-%zu.txt", i);
            check(unlink(other) == 0, other);
        }
    }
    print(phase, now() - start, (double)count);
}

int main(int count, char **words) {
    seed = 42;
    if (count >= 5 && strcmp(words[1], "write") == 0)
        write_file(words[2], strtoull(words[3], NULL, 10), strtoull(words[4], NULL, 10), count > 5);
    else if (count == 4 && strcmp(words[1], "read") == 0)
        read_file(words[2], strtoull(words[3], NULL, 10));
    else if (count == 3 && strcmp(words[1], "map") == 0)
        map_file(words[2]);
    else if (count == 6 && strcmp(words[1], "random") == 0)
        random_blocks(words[2], atoi(words[3]), strtoull(words[4], NULL, 10), words[5][0] == 'w');
    else if (count == 5 && strcmp(words[1], "files") == 0)
        small_files(words[2], strtoull(words[3], NULL, 10), words[4]);
    else {
        fputs("work: write|read|map|random|files …\n", stderr);
        return 2;
    }
    return 0;
}
