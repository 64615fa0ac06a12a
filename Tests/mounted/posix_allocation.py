"""fallocate(2) in each mode, holes, SEEK_HOLE and SEEK_DATA."""

import errno
import os
import random

from harness import equal, on_mount, raises
from harness.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, fallocate

SIZE = 100_000


def filled(d):
    data = random.Random(3).randbytes(SIZE)
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, data)
    os.fsync(fd)
    return fd, bytearray(data)


RANGES = [(0, 1), (0, 3552), (1, 3551), (3552, 4064), (3551, 4066), (10_000, 50_000), (4096, 4096), (99_999, 1)]


@on_mount()
def allocate(d):
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    fallocate(fd, 0, 0, 50_000)
    equal(os.fstat(fd).st_size, 50_000)
    equal(os.pread(fd, 60_000, 0), bytes(50_000))
    os.pwrite(fd, b"x" * 100, 49_900)
    fallocate(fd, 0, 10, 100)
    equal(os.fstat(fd).st_size, 50_000, "an allocation inside")
    fallocate(fd, 0, 49_999, 10_000)
    equal(os.fstat(fd).st_size, 59_999)
    equal(os.pread(fd, 100, 49_900), b"x" * 100)
    equal(os.pread(fd, 20_000, 50_000), bytes(9_999))
    raises(errno.EINVAL, fallocate, fd, 0, 0, 0)
    raises(errno.EINVAL, fallocate, fd, 0, -1, 10)
    os.close(fd)
    fd = os.open(d / "f", os.O_RDONLY)
    raises(errno.EBADF, fallocate, fd, 0, 0, 10)
    os.close(fd)


@on_mount()
def allocate_keeping_the_size(d):
    fd, data = filled(d)
    fallocate(fd, FALLOC_KEEP_SIZE, 0, 10 * SIZE)
    equal(os.fstat(fd).st_size, SIZE)
    equal(os.pread(fd, 2 * SIZE, 0), bytes(data))
    os.pwrite(fd, b"e", SIZE)
    equal(os.pread(fd, 10, SIZE - 1), bytes(data[-1:]) + b"e")
    os.close(fd)


@on_mount()
def punch_hole(d):
    for at, size in RANGES:
        fd, data = filled(d)
        fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, at, size)
        data[at:at + size] = bytes(size)
        equal(os.pread(fd, 2 * SIZE, 0), bytes(data), f"hole at {at}, {size} bytes")
        equal(os.fstat(fd).st_size, SIZE)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        equal(os.pread(fd, 2 * SIZE, 0), bytes(data), f"hole at {at}, {size} bytes, read again")
        os.close(fd)
        os.unlink(d / "f")
    fd, data = filled(d)
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, SIZE - 10, 1000)
    equal(os.fstat(fd).st_size, SIZE, "a hole past the end")
    raises((errno.EOPNOTSUPP, errno.EINVAL), fallocate, fd, FALLOC_PUNCH_HOLE, 0, 10)
    os.close(fd)


@on_mount()
def punching_frees_space(d):
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * (4 << 20))
    os.fsync(fd)
    before = os.fstat(fd).st_blocks
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 3 << 20)
    os.fsync(fd)
    after = os.stat(d / "f").st_blocks
    assert after * 512 < (1 << 20) + (1 << 17), f"{before} blocks became {after}"
    equal(os.pread(fd, 4 << 20, 0), bytes(3 << 20) + b"x" * (1 << 20))
    os.close(fd)


@on_mount()
def zero_range(d):
    for at, size in RANGES:
        fd, data = filled(d)
        fallocate(fd, FALLOC_ZERO_RANGE, at, size)
        data[at:at + size] = bytes(size)
        equal(os.pread(fd, 2 * SIZE, 0), bytes(data), f"zeros at {at}, {size} bytes")
        os.close(fd)
        os.unlink(d / "f")
    fd, data = filled(d)
    fallocate(fd, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, SIZE - 10, 1000)
    equal(os.fstat(fd).st_size, SIZE, "kept size")
    fallocate(fd, FALLOC_ZERO_RANGE, SIZE - 10, 1000)
    equal(os.fstat(fd).st_size, SIZE + 990, "grown size")
    equal(os.pread(fd, 2 * SIZE, 0), bytes(data[:SIZE - 10]) + bytes(1000))
    os.close(fd)


@on_mount()
def modes_not_offered_say_so(d):
    """COLLAPSE_RANGE and INSERT_RANGE: done right or refused with EOPNOTSUPP, nothing between."""
    fd, data = filled(d)
    for mode in (0x08, 0x20):
        raises((errno.EOPNOTSUPP, errno.EINVAL), fallocate, fd, mode, 1, 4096)
        equal(os.pread(fd, 2 * SIZE, 0), bytes(data))
    os.close(fd)


@on_mount()
def seek_data_and_hole(d):
    """What POSIX promises: data is never reported as a hole. (Holes need not be reported: with its writeback cache, Linux asks a
    FUSE file system for them without flushing first, so LetheFS lets the kernel answer that all is data.)"""
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 10 << 20)
    for at in (2 << 20, (5 << 20) + 123):
        os.pwrite(fd, b"d" * 70_000, at)
    os.fsync(fd)
    size, at, covered = 10 << 20, 0, []
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            equal(error.errno, errno.ENXIO)
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        assert start < at <= size, (start, at)
        covered.append((start, at))
    for at in (2 << 20, (5 << 20) + 123):
        assert any(start <= at and at + 70_000 <= end for start, end in covered), covered
    os.pwrite(fd, b"not flushed", 8 << 20)
    assert os.lseek(fd, (8 << 20) - 4096, os.SEEK_DATA) <= 8 << 20, "data that was just written passes for a hole"
    raises(errno.ENXIO, os.lseek, fd, size, os.SEEK_DATA)
    raises(errno.ENXIO, os.lseek, fd, size, os.SEEK_HOLE)
    assert os.lseek(fd, size - 1, os.SEEK_HOLE) in (size - 1, size)
    os.close(fd)


@on_mount()
def seek_in_a_full_file(d):
    fd, _ = filled(d)
    equal(os.lseek(fd, 0, os.SEEK_DATA), 0)
    equal(os.lseek(fd, 5, os.SEEK_DATA), 5)
    equal(os.lseek(fd, 0, os.SEEK_HOLE), SIZE, "the hole at the end")
    os.close(fd)


@on_mount()
def sparse_copy_by_programs(d):
    """cp --sparse and tar -S rely on the reported holes being true."""
    from harness import run
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 3 << 20)
    os.pwrite(fd, b"one", 100_000)
    os.pwrite(fd, b"two", 2_000_003)
    os.close(fd)
    run(["cp", "--sparse=always", d / "f", d / "copy"])
    run(["cmp", d / "f", d / "copy"])
    run(["tar", "-S", "-cf", d / "t.tar", "-C", d, "f"])
    (d / "out").mkdir()
    run(["tar", "-S", "-xf", d / "t.tar", "-C", d / "out"])
    run(["cmp", d / "f", d / "out/f"])
