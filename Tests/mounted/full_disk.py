"""A lower file system that fills up, or cannot be written: the program is told, and what was there stays."""

import errno
import os
import random

from harness import equal, on_volume, raises, run
from harness.disk import SmallDisk


def write_until_full(path, chunk=256 << 10):
    """Writes and fsyncs until an error; returns its errno. The error may come at write, fsync or close."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for _ in range(1000):
            os.write(fd, os.urandom(chunk))
            os.fsync(fd)
    except OSError as error:
        return error.errno
    finally:
        try:
            os.close(fd)
        except OSError:
            pass
    return 0


def write_and_close_until_full(top):
    """Whole files, never fsynced: a full disk shows at open, write or close."""
    for number in range(2000):
        try:
            fd = os.open(top / f"n{number}", os.O_WRONLY | os.O_CREAT)
            try:
                os.write(fd, os.urandom(64 << 10))
            finally:
                os.close(fd)
            os.sync()
        except OSError as error:
            return error.errno
    return 0


@on_volume(limit=180)
def earlier_files_stay_intact(volume):
    disk = SmallDisk(volume)
    volume.init().mount()
    files = {f"kept{number}": random.Random(number).randbytes(number * 997) for number in range(60)}
    for name, data in files.items():
        (volume.mountpoint / name).write_bytes(data)
    os.sync()
    equal(write_until_full(volume.mountpoint / "big"), errno.ENOSPC, "the error of a full disk")
    equal(write_and_close_until_full(volume.mountpoint), errno.ENOSPC, "the error of a full disk")
    for name, data in files.items():
        equal((volume.mountpoint / name).read_bytes(), data, name)
    for name in os.listdir(volume.mountpoint):
        if not name.startswith("kept"):
            os.unlink(volume.mountpoint / name)
    (volume.mountpoint / "after").write_bytes(b"there is room again" * 1000)
    volume.remount()
    for name, data in files.items():
        equal((volume.mountpoint / name).read_bytes(), data, f"{name} after a remount")
    equal((volume.mountpoint / "after").read_bytes(), b"there is room again" * 1000)
    volume.unmount().check()
    disk.remove()


@on_volume(limit=180)
def overwriting_in_place_on_a_full_disk(volume):
    """A file that exists in full can be overwritten without more space, and never becomes unreadable by trying."""
    disk = SmallDisk(volume)
    volume.init().mount()
    path = volume.mountpoint / "record"
    path.write_bytes(b"a" * 100_000)
    os.sync()
    equal(write_until_full(volume.mountpoint / "big"), errno.ENOSPC)
    fd = os.open(path, os.O_RDWR)
    for turn in range(20):
        os.pwrite(fd, bytes([turn]) * 4096, turn * 4096)
        os.fsync(fd)
    os.close(fd)
    want = b"".join(bytes([turn]) * 4096 for turn in range(20)).ljust(100_000, b"a")
    volume.remount()
    equal(path.read_bytes(), want)
    volume.unmount().check()
    disk.remove()


@on_volume(limit=180)
def no_inodes_left(volume):
    disk = SmallDisk(volume, 8)
    volume.init().mount()
    (volume.mountpoint / "kept").write_bytes(b"kept")
    made, error = 0, 0
    while not error and made < 20_000:
        try:
            os.mkdir(volume.mountpoint / f"d{made}")
            made += 1
        except OSError as failure:
            error = failure.errno
    equal(error, errno.ENOSPC)
    equal(sorted(os.listdir(volume.mountpoint)), sorted(["kept"] + [f"d{number}" for number in range(made)]),
          "a mkdir that failed left nothing")
    equal((volume.mountpoint / "kept").read_bytes(), b"kept")
    for number in range(made):
        os.rmdir(volume.mountpoint / f"d{number}")
    volume.unmount().check()
    disk.remove()


@on_volume(limit=60, needs=["daemon", "lethefs"])
def read_only_lower(volume):
    """Mounts with -o ro; without, the command says why not."""
    volume.init().mount()
    (volume.mountpoint / "f").write_bytes(b"readable" * 1000)
    volume.unmount()
    run(["mount", "--bind", volume.lower, volume.lower])
    run(["mount", "-o", "remount,ro,bind", volume.lower])
    answer = volume.command("mount", volume.lower, volume.mountpoint, check=False)
    assert answer.returncode != 0, "a volume that cannot be written was mounted for writing"
    assert "read-only" in answer.stderr.lower() or "read only" in answer.stderr.lower(), answer.stderr
    volume.mount(options="ro")
    equal((volume.mountpoint / "f").read_bytes(), b"readable" * 1000)
    raises(errno.EROFS, (volume.mountpoint / "f").write_bytes, b"")
    volume.unmount()
    run(["umount", volume.lower])


@on_volume(limit=60)
def file_size_limit(volume):
    """Offsets beyond what the lower file system holds are refused with EFBIG and nothing else changes."""
    volume.init().mount()
    fd = os.open(volume.mountpoint / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"small")
    raises((errno.EFBIG, errno.EINVAL, errno.EOVERFLOW), os.ftruncate, fd, (1 << 63) - 1)
    equal(os.pread(fd, 100, 0), b"small")
    os.close(fd)
    volume.unmount().check()
