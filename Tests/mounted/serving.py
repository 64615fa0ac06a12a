"""Requests are served side by side, and the kernel's page cache is given bounds that suit a daemon which keeps up."""

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from harness import Volume, as_user, equal, on_volume, run, spawn
from harness.disk import SmallDisk
from harness.fuse import is_mounted
from harness.process import in_child, wait_gone
from users import USER, ids, personal

BLOCKED = 7


@contextmanager
def frozen(directory):
    """Whoever writes to the file system waits."""
    run(["fsfreeze", "-f", directory], limit=30)
    try:
        yield
    finally:
        run(["fsfreeze", "-u", directory], limit=30)


def waiting_threads(volume):
    """Threads of the daemon that wait for the lower storage."""
    count = 0
    for task in Path(f"/proc/{volume.daemon}/task").iterdir():
        try:
            count += "State:\tD" in (task / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            pass
    return count


def make_at_once(top, name):
    """One program makes a file in each of the directories, in the same moment."""
    barrier = threading.Barrier(BLOCKED)

    def make(number):
        barrier.wait()
        (top / f"d{number}" / name).touch()

    makers = [threading.Thread(target=make, args=(number,)) for number in range(BLOCKED)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()


def interrupted(top, seconds):
    """Signals meet requests at every moment, also when they have just been answered."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1
        path = top / f"interrupted{number}"
        path.write_bytes(b"x" * 5000)
        os.path.exists(top / f"absent{number}")
        path.unlink()
    signal.setitimer(signal.ITIMER_REAL, 0)


def ask(top):
    began = time.monotonic()
    for number in range(500):
        assert not os.path.exists(top / f"none{number}")
    equal((top / "there").read_bytes(), b"there" * 3000)
    return time.monotonic() - began


@on_volume(limit=180, needs=["lethefs"])
def requests_that_wait_hold_nobody_up(volume):
    """More of them than there are processors, or than threads were there before, and all at once."""
    disk = SmallDisk(volume, 64)
    volume.init().mount("allow_other,transport=dev-fuse")
    top = volume.mountpoint
    (top / "there").write_bytes(b"there" * 3000)
    for number in range(BLOCKED):
        (top / f"d{number}").mkdir()
    for turn in range(4):
        volume.remount("allow_other,transport=dev-fuse")
        if turn % 2:
            in_child(interrupted, top, 2, limit=20)
        with frozen(volume.lower):
            makers = spawn([sys.executable, "-c", MAKE, top, f"new{turn}"])
            until = time.monotonic() + 20
            while waiting_threads(volume) < BLOCKED:
                assert time.monotonic() < until, f"{waiting_threads(volume)} requests are waiting, not {BLOCKED}"
                time.sleep(0.05)
            # In another process, which can be ended: whatever comes of it, the file system is to thaw.
            took = in_child(ask, top, limit=20)
            assert took < 10, f"others' requests took {took:.1f} s"
            assert makers.poll() is None, "a frozen file system was written to"
        equal(makers.wait(30), 0, "who made files")
        for number in range(BLOCKED):
            assert (top / f"d{number}/new{turn}").exists()
    volume.unmount()
    disk.remove()


#: `make_at_once` as a program.
MAKE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from serving import make_at_once
make_at_once(Path(sys.argv[1]), sys.argv[2])
"""


def bounds(mountpoint):
    device = os.stat(mountpoint).st_dev
    attributes = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}")
    return tuple(int((attributes / name).read_text()) for name in ("read_ahead_kb", "max_bytes"))


@on_volume(limit=120, needs=["lethefs", "daemon"])
def page_cache_bounds(volume):
    """Root's mounts read ahead farther than the kernel's 128 KiB. A plain user may not set it, and mounts all the same."""
    volume.init().mount()
    ahead, unwritten = bounds(volume.mountpoint)
    equal(ahead, 512, "KiB read ahead")
    # The kernel keeps it as a share of what moves with free memory.
    least = min(64 << 20, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 32)
    assert unwritten > least * 0.8, f"{unwritten} bytes may be unwritten, not {least}"
    volume.unmount()
    with personal(volume) as own:
        own.init().mount(options="")
        equal(as_user(*ids(USER), bounds, own.mountpoint)[0], 128, "KiB read ahead for a plain user")
        own.unmount()


@on_volume(limit=60, needs=["lethefs"])
def ends_its_own_mount_only(volume):
    """What was mounted over it, or in its place since it was detached, stays when the daemon is told to end."""
    for is_detached in (False, True):
        if not is_detached:
            volume.init()
        volume.mount()
        held = os.open(volume.mountpoint / "held", os.O_RDWR | os.O_CREAT)
        if is_detached:
            run(["umount", "-l", volume.mountpoint])
        run(["mount", "-t", "tmpfs", "tmpfs", volume.mountpoint])
        try:
            (volume.mountpoint / "other").write_bytes(b"somebody else's")
            os.kill(volume.daemon, signal.SIGTERM)
            wait_gone(volume.daemon)
            equal((volume.mountpoint / "other").read_bytes(), b"somebody else's")
        finally:
            run(["umount", volume.mountpoint])
            os.close(held)
        if is_mounted(volume.mountpoint):
            run(["umount", "-l", volume.mountpoint])
    volume.check()


@on_volume(limit=60, needs=["lethefs"])
def an_end_that_fails_is_told(volume):
    """`unmount` does not say that all is stored where the lower storage could not be flushed."""
    other = Volume(volume.root / "other")
    other.init().mount()
    volume.lower = other.mountpoint / "lower"
    volume.lower.mkdir()
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(b"x" * 100_000)
    os.kill(other.daemon, signal.SIGKILL)
    wait_gone(other.daemon)
    told = volume.command("unmount", volume.mountpoint, check=False)
    equal(told.returncode, 40, told.stderr)
    assert not is_mounted(volume.mountpoint)
    wait_gone(volume.daemon)
