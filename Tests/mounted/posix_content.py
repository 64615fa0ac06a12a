"""Reading and writing: every way that a program puts bytes into a file and gets them back."""

import errno
import mmap
import os
import random

from harness import equal, on_mount, raises
from harness.process import in_child
from harness.syscalls import aligned, link_following

#: Sizes around every boundary of the format and of a request.
SIZES = sorted({0, 1, 31, 32, 33, 511, 512, 513, 65536, 100_000} | {
    edge + step for edge in (3552, 4064, 4096, 3552 + 4064, 3552 + 2 * 4064, 131072, 1 << 20, 3552 + 258 * 4064)
    for step in (-1, 0, 1)})


def sample(size, seed=1):
    return random.Random(seed).randbytes(size)


@on_mount(limit=60)
def every_boundary_size(d):
    for size in SIZES:
        (d / str(size)).write_bytes(sample(size, size))
    for size in SIZES:
        equal((d / str(size)).stat().st_size, size, f"st_size of {size}")
        equal((d / str(size)).read_bytes(), sample(size, size), f"content of {size}")


@on_mount(limit=60)
def every_boundary_survives_dropped_caches(d):
    for size in SIZES:
        with open(d / str(size), "wb") as file:
            file.write(sample(size, size))
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for size in SIZES:
        equal((d / str(size)).read_bytes(), sample(size, size), f"content of {size}")


@on_mount()
def one_byte_at_a_time(d):
    with open(d / "f", "wb", buffering=0) as file:
        for value in range(5000):
            file.write(bytes([value & 255]))
    equal((d / "f").read_bytes(), bytes(value & 255 for value in range(5000)))


@on_mount()
def writes_at_any_offset(d):
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    model, chance = bytearray(30_000), random.Random(7)
    os.ftruncate(fd, len(model))
    for _ in range(500):
        at, size = chance.randrange(25_000), chance.choice((1, 2, 31, 512, 3552, 4064, 4096, 4999))
        data = chance.randbytes(size)
        equal(os.pwrite(fd, data, at), size, "pwrite")
        model[at:at + size] = data
        at = chance.randrange(25_000)
        equal(os.pread(fd, 4999, at), bytes(model[at:at + 4999]), "pread")
    os.close(fd)
    equal((d / "f").read_bytes(), bytes(model))


@on_mount()
def reading_past_the_end(d):
    (d / "f").write_bytes(b"x" * 5000)
    fd = os.open(d / "f", os.O_RDONLY)
    equal(os.pread(fd, 100, 4990), b"x" * 10)
    equal(os.pread(fd, 100, 5000), b"")
    equal(os.pread(fd, 100, 1 << 40), b"")
    raises(errno.EBADF, os.write, fd, b"x")
    os.close(fd)
    fd = os.open(d / "f", os.O_WRONLY)
    raises(errno.EBADF, os.read, fd, 1)
    os.close(fd)


@on_mount()
def appends(d):
    first = os.open(d / "f", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    second = os.open(d / "f", os.O_WRONLY | os.O_APPEND)
    want = b""
    for turn in range(300):
        data = bytes([turn & 255]) * (turn * 7 % 97 + 1)
        os.write(first if turn % 2 else second, data)
        want += data
    os.lseek(first, 0, os.SEEK_SET)
    os.write(first, b"end")
    equal((d / "f").read_bytes(), want + b"end")


@on_mount()
def appends_of_several_processes_are_whole(d):
    (d / "f").touch()

    def append(mark):
        fd = os.open(d / "f", os.O_WRONLY | os.O_APPEND)
        for _ in range(200):
            os.write(fd, mark * 100)

    children = []
    for mark in (b"a", b"b", b"c"):
        pid = os.fork()
        if pid == 0:
            append(mark)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    data = (d / "f").read_bytes()
    equal(len(data), 3 * 200 * 100, "length")
    for at in range(0, len(data), 100):
        assert data[at:at + 100] == data[at:at + 1] * 100, f"record at {at} is mixed"


@on_mount()
def truncate_down_and_up(d):
    path, data = d / "f", sample(20_000)
    for size in (19_999, 12_000, 3552 + 4064, 4096, 3553, 3552, 3551, 100, 1, 0):
        path.write_bytes(data)
        os.truncate(path, size)
        equal(path.stat().st_size, size)
        equal(path.read_bytes(), data[:size], f"cut to {size}")
        os.truncate(path, 20_000)
        equal(path.read_bytes(), data[:size].ljust(20_000, b"\0"), f"cut to {size}, grown")
    raises(errno.EINVAL, os.truncate, path, -1)


@on_mount()
def cut_bytes_never_come_back(d):
    """What lies behind the end of a short last page is zero when the file grows by a later write."""
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"S" * 9000)
    os.fsync(fd)
    os.ftruncate(fd, 10)
    os.pwrite(fd, b"e", 8999)
    equal(os.pread(fd, 10_000, 0), b"S" * 10 + bytes(8989) + b"e")
    os.close(fd)


@on_mount()
def truncate_to_large_and_sparse_writes(d):
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 5 << 30)
    os.pwrite(fd, b"middle", 3 << 30)
    equal(os.pread(fd, 6, 3 << 30), b"middle")
    equal(os.pread(fd, 8192, (3 << 30) - 8192), bytes(8192))
    equal(os.fstat(fd).st_size, 5 << 30)
    os.fsync(fd)
    assert os.fstat(fd).st_blocks * 512 < 1 << 20, "a sparse file takes its whole length"
    os.close(fd)


@on_mount()
def open_flags(d):
    path = d / "f"
    raises(errno.ENOENT, os.open, path, os.O_RDWR)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    raises(errno.EEXIST, os.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    path.write_bytes(b"data")
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    equal(path.stat().st_size, 0, "size after O_TRUNC")
    equal(path.read_bytes(), b"")
    os.symlink("f", d / "link")
    raises(errno.ELOOP, os.open, d / "link", os.O_RDONLY | os.O_NOFOLLOW)
    os.symlink("nothing", d / "dangling")
    raises(errno.EEXIST, os.open, d / "dangling", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    raises(errno.ENOTDIR, os.open, path, os.O_RDONLY | os.O_DIRECTORY)
    raises(errno.EISDIR, os.open, d, os.O_RDWR)
    raises(errno.ENOTDIR, os.open, path / "below", os.O_RDONLY)
    fd = os.open(path, os.O_PATH)
    equal(os.fstat(fd).st_size, 0)
    raises(errno.EBADF, os.read, fd, 1)
    os.close(fd)


@on_mount()
def truncation_of_a_file_open_elsewhere(d):
    path = d / "f"
    path.write_bytes(sample(10_000))
    reader = os.open(path, os.O_RDONLY)
    equal(os.pread(reader, 10_000, 0), sample(10_000))
    path.write_bytes(b"new")
    equal(os.pread(reader, 10_000, 0), b"new")
    equal(os.fstat(reader).st_size, 3)
    os.close(reader)


@on_mount()
def shared_mapping(d):
    path = d / "f"
    path.write_bytes(bytes(20_000))
    with open(path, "r+b") as file:
        with mmap.mmap(file.fileno(), 0) as memory:
            memory[3550:3560] = b"0123456789"
            equal(os.pread(file.fileno(), 10, 3550), b"0123456789", "read sees the mapping")
            os.pwrite(file.fileno(), b"written", 12_000)
            equal(memory[12_000:12_007], b"written", "the mapping sees the write")
            memory.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    want = bytearray(20_000)
    want[3550:3560], want[12_000:12_007] = b"0123456789", b"written"
    equal(path.read_bytes(), bytes(want))


@on_mount()
def mapping_outlives_its_descriptor(d):
    path = d / "f"
    path.write_bytes(bytes(8192))
    fd = os.open(path, os.O_RDWR)
    memory = mmap.mmap(fd, 8192)
    os.close(fd)
    memory[5000:5004] = b"late"
    memory.close()
    equal(path.read_bytes()[5000:5004], b"late")


@on_mount()
def private_mapping_changes_nothing(d):
    (d / "f").write_bytes(b"a" * 8192)
    with open(d / "f", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
        memory[0:1] = b"b"
    equal((d / "f").read_bytes(), b"a" * 8192)


@on_mount()
def direct_io(d):
    data = sample(256 * 1024)
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    equal(os.pwritev(fd, [aligned(data)], 0), len(data), "pwritev")
    equal(os.pwritev(fd, [aligned(data[:4096])], 8192), 4096, "pwritev")
    memory = aligned(bytes(len(data)))
    equal(os.preadv(fd, [memory], 0), len(data), "preadv")
    want = data[:8192] + data[:4096] + data[12288:]
    equal(bytes(memory), want, "direct read")
    os.close(fd)
    equal((d / "f").read_bytes(), want, "buffered read")


@on_mount()
def direct_and_buffered_agree(d):
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    direct = os.open(d / "f", os.O_RDWR | os.O_DIRECT)
    os.write(fd, b"b" * 8192)
    memory = aligned(bytes(8192))
    equal(os.preadv(direct, [memory], 0), 8192)
    equal(bytes(memory), b"b" * 8192, "direct read after a buffered write")
    os.pwritev(direct, [aligned(b"d" * 4096)], 4096)
    equal(os.pread(fd, 8192, 0), b"b" * 4096 + b"d" * 4096, "buffered read after a direct write")
    os.close(fd)
    os.close(direct)


@on_mount()
def vectored_io(d):
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    parts = [sample(size, size) for size in (1, 4000, 0, 96, 10_000)]
    equal(os.writev(fd, parts), sum(map(len, parts)))
    buffers = [bytearray(size) for size in (4001, 96, 10_000)]
    equal(os.preadv(fd, buffers, 0), sum(map(len, parts)))
    equal(b"".join(buffers), b"".join(parts))
    os.close(fd)


@on_mount()
def copy_file_range_and_sendfile(d):
    data = sample(300_000)
    (d / "from").write_bytes(data)
    source = os.open(d / "from", os.O_RDONLY)
    target = os.open(d / "to", os.O_RDWR | os.O_CREAT)
    done = 0
    while done < 200_000:
        done += os.copy_file_range(source, target, 200_000 - done, 1000 + done, 500 + done)
    equal(os.pread(target, 300_000, 0), bytes(500) + data[1000:201_000])
    os.ftruncate(target, 0)
    os.lseek(target, 0, os.SEEK_SET)
    sent = 0
    while sent < len(data):
        sent += os.sendfile(target, source, sent, len(data) - sent)
    equal(os.pread(target, 300_000, 0), data, "sendfile")
    os.close(source)
    os.close(target)


@on_mount()
def sync_calls(d):
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT | os.O_DSYNC)
    os.write(fd, b"x" * 5000)
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    directory = os.open(d, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.fdatasync(directory)
    os.close(directory)
    os.sync()


@on_mount()
def unlinked_but_open(d):
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, sample(10_000))
    os.unlink(d / "f")
    equal(os.listdir(d), [], "entries")
    equal(os.fstat(fd).st_nlink, 0, "st_nlink")
    equal(os.pread(fd, 10_000, 0), sample(10_000))
    os.pwrite(fd, b"more", 10_000)
    os.ftruncate(fd, 10_002)
    equal(os.fstat(fd).st_size, 10_002)
    equal(os.pread(fd, 100, 9_999), sample(10_000)[9_999:] + b"mo")
    os.fchmod(fd, 0o640)
    equal(os.fstat(fd).st_mode & 0o7777, 0o640)
    os.utime(fd, ns=(5, 7))
    equal(os.fstat(fd).st_mtime_ns, 7)
    os.fsync(fd)
    (d / "f").write_bytes(b"another")
    equal(os.pread(fd, 1, 0), sample(10_000)[:1])
    os.close(fd)
    equal((d / "f").read_bytes(), b"another")
    equal(os.listdir(d), ["f"])


@on_mount()
def replaced_while_open(d):
    (d / "old").write_bytes(b"old")
    (d / "new").write_bytes(b"new")
    fd = os.open(d / "old", os.O_RDONLY)
    os.rename(d / "new", d / "old")
    equal(os.read(fd, 10), b"old")
    equal(os.fstat(fd).st_nlink, 0)
    os.close(fd)
    equal(sorted(os.listdir(d)), ["old"])
    equal((d / "old").read_bytes(), b"new")


@on_mount()
def temporary_file_without_name(d):
    """O_TMPFILE works, or says so in the way that every program falls back from."""
    try:
        fd = os.open(d, os.O_TMPFILE | os.O_RDWR)
    except OSError as error:
        assert error.errno in (errno.EOPNOTSUPP, errno.EISDIR), error
        return
    os.write(fd, b"named later")
    link_following(f"/proc/self/fd/{fd}", d / "f")
    os.close(fd)
    equal((d / "f").read_bytes(), b"named later")


@on_mount()
def inherited_descriptor(d):
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"parent ")
    in_child(lambda: os.write(fd, b"child"))
    os.write(fd, b" parent")
    equal(os.pread(fd, 100, 0), b"parent child parent")
    os.close(fd)
