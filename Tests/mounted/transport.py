"""FUSE over io_uring: it serves as /dev/fuse does, it ends in every way that a mount can end, and where it cannot be had nothing is
lost. These cases switch the kernel's module parameter on for the moment of their mounts."""

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager

from harness import differs, equal, on_volume, run
from harness.fuse import abort_under, detach, is_mounted
from harness.process import alive, wait_gone
from harness.ring import switched


def status(volume):
    return json.loads(volume.command("status", volume.mountpoint, "--json").stdout)


def ring_mount(volume):
    with switched("Y"):
        volume.mount("allow_other,transport=io_uring")
    equal(status(volume)["transport"], "io_uring", "the transport")


def fill(volume, count=40):
    for number in range(count):
        (volume.mountpoint / f"f{number}").write_bytes(bytes([number]) * (5000 * number + 1))


def verify(volume, count=40):
    for number in range(count):
        equal((volume.mountpoint / f"f{number}").read_bytes(), bytes([number]) * (5000 * number + 1), f"f{number}")


@contextmanager
def load(volume, jobs=4):
    """Programs that read, write and list, until the mount goes."""
    script = (f"cd {volume.mountpoint} || exit; n=0; while :; do n=$((n+1)); head -c 300000 /dev/zero > load-$0-$((n%7)) || exit; "
              "cat f1 f20 f39 > /dev/null || exit; ls -l > /dev/null || exit; done")
    started = [subprocess.Popen(["sh", "-c", script, str(job)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                start_new_session=True) for job in range(jobs)]
    time.sleep(0.5)
    try:
        yield
    finally:
        for child in started:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for child in started:
            child.wait(20)


@on_volume(limit=120, needs=["lethefs", "io_uring"])
def serves(volume):
    volume.init()
    ring_mount(volume)
    fill(volume)
    verify(volume)
    volume.unmount()
    ring_mount(volume)
    verify(volume)
    big = os.urandom(5_000_003)
    (volume.mountpoint / "big").write_bytes(big)
    with open(volume.mountpoint / "big", "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for start in (0, 1, 3551, 3552, 4_063_999):
            file.seek(start)
            equal(file.read(1_200_001), big[start:start + 1_200_001], f"at {start}")
    os.chmod(volume.mountpoint / "f1", 0o4755)
    run(["sh", "-c", f"umask 027; mkdir {volume.mountpoint}/made"])
    equal(os.stat(volume.mountpoint / "made").st_mode & 0o777, 0o750, "the program's umask")
    run(["sh", "-c", f"echo more >> {volume.mountpoint}/f1"], user="nobody", check=False)
    equal(os.stat(volume.mountpoint / "f1").st_mode & 0o7777, 0o4755, "set-ID, when nothing could be written")
    os.chmod(volume.mountpoint / "f1", 0o4777)
    run(["sh", "-c", f"echo more >> {volume.mountpoint}/f1"], user="nobody")
    equal(os.stat(volume.mountpoint / "f1").st_mode & 0o7777, 0o777, "set-ID after another user's write")
    volume.unmount().check()


@on_volume(limit=120, needs=["lethefs", "io_uring"])
def falls_back(volume):
    """Switched off: auto takes /dev/fuse and says how to switch it on; asked for by name, the mount fails, and nothing is mounted."""
    volume.init()
    with switched("N"):
        volume.mount("allow_other,transport=auto")
        told = status(volume)
        equal(told["transport"], "dev-fuse")
        assert "enable_uring" in told["transportNote"], told
        fill(volume, 5)
        verify(volume, 5)
        volume.unmount()
        answer = volume.command("mount", volume.lower, volume.mountpoint, "-o", "transport=io_uring", check=False)
        differs(answer.returncode, 0, "exit status")
        assert "enable_uring" in answer.stderr, answer.stderr
        assert not is_mounted(volume.mountpoint)
    with switched("Y"):
        volume.mount("allow_other,transport=dev-fuse")
    equal(status(volume)["transport"], "dev-fuse")
    volume.unmount()


@on_volume(limit=180, needs=["lethefs", "io_uring"])
def ends_idle(volume):
    """Unmounted, SIGTERM, SIGKILL, umount -l, aborted: the daemon is gone each time, and the next mount is whole."""
    volume.init()
    ring_mount(volume)
    fill(volume)
    volume.unmount()
    for end in (_terminate, _kill, _lazy, _abort):
        ring_mount(volume)
        verify(volume, 10)
        end(volume)
    volume.mount()
    verify(volume)
    volume.unmount().check()


@on_volume(limit=240, needs=["lethefs", "io_uring"])
def ends_loaded(volume):
    """The same with requests in flight: no process stays that cannot be ended."""
    volume.init()
    ring_mount(volume)
    fill(volume)
    os.sync()
    volume.unmount()
    for end in (_terminate, _kill, _lazy_then_kill, _abort):
        ring_mount(volume)
        with load(volume):
            end(volume)
    volume.mount()
    verify(volume)
    volume.unmount()


def _terminate(volume):
    os.kill(volume.daemon, signal.SIGTERM)
    wait_gone(volume.daemon, 20)
    detach(volume.mountpoint)


def _kill(volume):
    os.kill(volume.daemon, signal.SIGKILL)
    wait_gone(volume.daemon, 20)
    detach(volume.mountpoint)


def _lazy(volume):
    detach(volume.mountpoint)
    wait_gone(volume.daemon, 20)


def _lazy_then_kill(volume):
    detach(volume.mountpoint)
    time.sleep(0.3)
    if alive(volume.daemon):
        os.kill(volume.daemon, signal.SIGKILL)
    wait_gone(volume.daemon, 20)


def _abort(volume):
    abort_under(volume.mountpoint)
    wait_gone(volume.daemon, 20)
    detach(volume.mountpoint)


@on_volume(limit=120, needs=["lethefs", "io_uring"])
def interrupts(volume):
    """A signal for a program that waits for a slow request does not harm the next ones."""
    volume.init()
    ring_mount(volume)
    fill(volume)
    for _ in range(20):
        child = subprocess.Popen(["sh", "-c", f"cat {volume.mountpoint}/* > /dev/null; head -c 3000000 /dev/zero > {volume.mountpoint}/w; sync"],
                                 start_new_session=True)
        time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)
    verify(volume)
    volume.unmount().check()


#: Fails the Nth of one kind of call that setting rings up makes.
FAILING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static int due(const char *what) {
    static int seen;
    const char *wanted = getenv("FAIL_WHAT"), *nth = getenv("FAIL_NTH");
    return wanted && nth && strcmp(wanted, what) == 0 && ++seen == atoi(nth);
}
long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if ((number == SYS_io_uring_setup && due("setup")) || (number == SYS_io_uring_register && due("register"))) {
        errno = ENOMEM;
        return -1;
    }
    return real(number, a, b, c, d, e, f);
}
int eventfd(unsigned count, int flags) {
    if (due("eventfd")) {
        errno = EMFILE;
        return -1;
    }
    return syscall(SYS_eventfd2, count, flags);
}
"""


@on_volume(limit=240, needs=["lethefs", "io_uring"])
def set_up_fails(volume):
    """Whatever step of setting it up fails, the mount stands and serves: by /dev/fuse."""
    volume.init()
    source, library = volume.root / "failing.c", volume.root / "failing.so"
    source.write_text(FAILING)
    run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"])
    lanes = os.cpu_count() * (4 if os.cpu_count() <= 4 else 2)
    # The first ring is the probe's. A register call after the set-up is a lane's own: that lane is missed, and the others serve.
    for what, nth, expected in (("setup", 2, "dev-fuse"), ("setup", lanes + 1, "dev-fuse"), ("register", 1, "dev-fuse"),
                                ("register", lanes, "dev-fuse"), ("register", lanes + 1, "io_uring"), ("eventfd", 1, None)):
        environment = {"LD_PRELOAD": str(library), "FAIL_WHAT": what, "FAIL_NTH": str(nth), **volume.env}
        with switched("Y"):
            run([volume.backend.program(), "mount", volume.lower, volume.mountpoint], env=environment)
        volume.daemon = volume.pid()
        told = status(volume)
        if expected:
            equal(told["transport"], expected, f"the transport after {what} {nth} failed")
        fill(volume, 12)
        verify(volume, 12)
        volume.unmount()


def threads(volume):
    return [int(name) for name in os.listdir(f"/proc/{volume.daemon}/task")]


def ask(volume, times):
    """Small requests that the kernel cannot answer for itself."""
    for _ in range(times):
        try:
            os.getxattr(volume.mountpoint / "f1", "user.none")
        except OSError:
            pass


@contextmanager
def busy_processors(count):
    """Programs that leave so many of them no time to be idle."""
    running = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


def follow_one_program(volume):
    fill(volume)
    if len(os.sched_getaffinity(0)) < 2:
        return
    # On a busy machine it takes a while until nobody else wants that CPU.
    until = time.monotonic() + 40
    while not any(len(os.sched_getaffinity(thread)) == 1 for thread in threads(volume)):
        assert time.monotonic() < until, "no thread follows"
        ask(volume, 200)
    while any(os.sched_getscheduler(thread) != os.SCHED_OTHER for thread in threads(volume)):
        assert time.monotonic() < until, "a thread is left with another policy"
        time.sleep(0.1)


@on_volume(limit=120, needs=["lethefs"])
def workers_follow_one_program(volume):
    """Over /dev/fuse, where others leave no two CPUs idle: the threads that serve are on the program's."""
    volume.init().mount("allow_other,transport=dev-fuse")
    with busy_processors(os.cpu_count() - 1):
        follow_one_program(volume)
    with load(volume):
        ask(volume, 2000)
    verify(volume)
    volume.unmount()


@on_volume(limit=120, needs=["lethefs", "io_uring"])
def lanes_follow_one_program(volume):
    """Over io_uring, while one program asks for little; none is left with the policy that it replies with."""
    ring_mount(volume.init())
    follow_one_program(volume)
    with load(volume):
        ask(volume, 2000)
    verify(volume)
    volume.unmount()
