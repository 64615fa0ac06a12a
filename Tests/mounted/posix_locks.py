"""flock(2) and fcntl(2) locks, between processes."""

import errno
import fcntl
import os
import time

from harness import equal, on_mount, raises
from harness.process import in_child


def try_flock(path, kind):
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, kind | fcntl.LOCK_NB)
    os.close(fd)
    return True


def try_range(path, kind, size, at):
    fd = os.open(path, os.O_RDWR)
    fcntl.lockf(fd, kind | fcntl.LOCK_NB, size, at)
    os.close(fd)
    return True


BUSY = (errno.EAGAIN, errno.EACCES)


@on_mount()
def flock_excludes(d):
    (d / "f").touch()
    fd = os.open(d / "f", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    raises(BUSY, in_child, try_flock, d / "f", fcntl.LOCK_EX)
    raises(BUSY, in_child, try_flock, d / "f", fcntl.LOCK_SH)
    fcntl.flock(fd, fcntl.LOCK_SH)
    equal(in_child(try_flock, d / "f", fcntl.LOCK_SH), True)
    raises(BUSY, in_child, try_flock, d / "f", fcntl.LOCK_EX)
    fcntl.flock(fd, fcntl.LOCK_UN)
    equal(in_child(try_flock, d / "f", fcntl.LOCK_EX), True)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.close(fd)
    equal(in_child(try_flock, d / "f", fcntl.LOCK_EX), True)


@on_mount()
def ranges_exclude(d):
    (d / "f").write_bytes(bytes(1000))
    fd = os.open(d / "f", os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 100, 100)
    raises(BUSY, in_child, try_range, d / "f", fcntl.LOCK_EX, 10, 150)
    raises(BUSY, in_child, try_range, d / "f", fcntl.LOCK_SH, 1, 199)
    equal(in_child(try_range, d / "f", fcntl.LOCK_EX, 100, 0), True)
    equal(in_child(try_range, d / "f", fcntl.LOCK_EX, 0, 200), True)
    fcntl.lockf(fd, fcntl.LOCK_UN, 50, 150)
    equal(in_child(try_range, d / "f", fcntl.LOCK_EX, 50, 150), True)
    raises(BUSY, in_child, try_range, d / "f", fcntl.LOCK_EX, 50, 149)
    os.close(fd)
    equal(in_child(try_range, d / "f", fcntl.LOCK_EX, 0, 0), True)


@on_mount()
def locks_of_a_killed_process_go(d):
    (d / "f").touch()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        fd = os.open(d / "f", os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.write(writing, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(reading, 1)
    raises(BUSY, try_flock, d / "f", fcntl.LOCK_EX)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    equal(try_flock(d / "f", fcntl.LOCK_EX), True)
    equal(try_range(d / "f", fcntl.LOCK_EX, 0, 0), True)


@on_mount()
def a_waiting_lock_is_granted(d):
    (d / "f").touch()
    fd = os.open(d / "f", os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX)
    pid = os.fork()
    if pid == 0:
        other = os.open(d / "f", os.O_RDWR)
        fcntl.lockf(other, fcntl.LOCK_EX)
        os._exit(0)
    time.sleep(0.2)
    equal(os.waitpid(pid, os.WNOHANG)[0], 0, "the waiter waits")
    fcntl.lockf(fd, fcntl.LOCK_UN)
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            os.close(fd)
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the waiter did not get its lock")


@on_mount()
def counter_under_a_lock(d):
    (d / "n").write_bytes(b"0")

    def count():
        fd = os.open(d / "n", os.O_RDWR)
        for _ in range(100):
            fcntl.flock(fd, fcntl.LOCK_EX)
            value = int(os.pread(fd, 20, 0)) + 1
            os.pwrite(fd, str(value).encode(), 0)
            fcntl.flock(fd, fcntl.LOCK_UN)

    pids = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            count()
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    equal((d / "n").read_bytes(), b"300")
