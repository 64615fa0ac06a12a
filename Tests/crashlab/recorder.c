// A file system of two files for the crash laboratory: `disk`, the backing file of a loop device, and `mark`.
//
//     recorder DISK LOG MOUNTPOINT
//
// Whatever is written to `disk` goes to the file DISK and, with each flush and each text written to `mark`, to LOG, in the
// order in which it was acknowledged. A record: kind 4 | length 4 | offset 8 | length bytes. Kinds: 1 write, 2 flush, 3 mark.
#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int disk = -1, record = -1;

static int note(uint32_t kind, const char *data, size_t length, off_t offset) {
    struct { uint32_t kind, length; uint64_t offset; } head = {kind, (uint32_t)length, (uint64_t)offset};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, length}};
    return writev(record, parts, 2) == (ssize_t)(sizeof head + length) ? 0 : -EIO;
}

static int is_disk(const char *path) { return strcmp(path, "/disk") == 0; }
static int is_mark(const char *path) { return strcmp(path, "/mark") == 0; }

static int get_attributes(const char *path, struct stat *info, struct fuse_file_info *file) {
    (void)file;
    memset(info, 0, sizeof *info);
    info->st_nlink = 1;
    if (strcmp(path, "/") == 0) {
        info->st_mode = S_IFDIR | 0755;
    } else if (is_disk(path)) {
        if (fstat(disk, info) != 0) return -errno;
        info->st_mode = S_IFREG | 0600;
    } else if (is_mark(path)) {
        info->st_mode = S_IFREG | 0600;
    } else {
        return -ENOENT;
    }
    return 0;
}

static int open_file(const char *path, struct fuse_file_info *file) {
    if (!is_disk(path) && !is_mark(path)) return -ENOENT;
    file->direct_io = is_mark(path);
    return 0;
}

static int read_file(const char *path, char *data, size_t count, off_t offset, struct fuse_file_info *file) {
    (void)file;
    if (!is_disk(path)) return 0;
    ssize_t done = pread(disk, data, count, offset);
    return done < 0 ? -errno : (int)done;
}

static int write_file(const char *path, const char *data, size_t count, off_t offset, struct fuse_file_info *file) {
    (void)file;
    if (is_mark(path)) return note(3, data, count, 0) ? -EIO : (int)count;
    if (pwrite(disk, data, count, offset) != (ssize_t)count) return -EIO;
    return note(1, data, count, offset) ? -EIO : (int)count;
}

static int sync_file(const char *path, int data_only, struct fuse_file_info *file) {
    (void)data_only, (void)file;
    return is_disk(path) ? note(2, NULL, 0, 0) : 0;
}

static int truncate_file(const char *path, off_t length, struct fuse_file_info *file) {
    (void)file, (void)length;
    return is_mark(path) ? 0 : -EPERM;
}

static const struct fuse_operations operations = {
    .getattr = get_attributes, .open = open_file, .read = read_file, .write = write_file, .fsync = sync_file,
    .truncate = truncate_file,
};

int main(int count, char **arguments) {
    if (count != 4) return 64;
    disk = open(arguments[1], O_RDWR);
    record = open(arguments[2], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    if (disk < 0 || record < 0) return 1;
    char *words[] = {arguments[0], "-f", "-s", "-o", "fsname=crashlab,subtype=recorder", arguments[3], NULL};
    return fuse_main(6, words, &operations, NULL);
}
