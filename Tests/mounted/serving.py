"""Requests are served side by side, and the kernel's page cache is given bounds that suit a daemon which keeps up."""

import os
import time
from contextlib import contextmanager
from pathlib import Path

from harness import as_user, equal, on_volume, run, spawn
from harness.disk import SmallDisk
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


def serving(volume):
    """Threads of the daemon that wait for the lower storage."""
    return sum("State:\tD" in (task / "status").read_text() for task in Path(f"/proc/{volume.daemon}/task").iterdir())


@on_volume(limit=120, needs=["lethefs"])
def requests_that_wait_hold_nobody_up(volume):
    """More of them than there are processors, or than threads were there before."""
    disk = SmallDisk(volume, 64)
    volume.init().mount("allow_other,transport=dev-fuse")
    top = volume.mountpoint
    (top / "there").write_bytes(b"there" * 3000)
    for number in range(BLOCKED):
        (top / f"d{number}").mkdir()
    volume.unmount()
    volume.mount("allow_other,transport=dev-fuse")
    with frozen(volume.lower):
        writers = [spawn(["touch", top / f"d{number}/new"]) for number in range(BLOCKED)]
        until = time.monotonic() + 20
        while serving(volume) < BLOCKED:
            assert time.monotonic() < until, f"{serving(volume)} requests are waiting, not {BLOCKED}"
            time.sleep(0.05)
        began = time.monotonic()
        for number in range(500):
            assert not os.path.exists(top / f"absent{number}")
        equal((top / "there").read_bytes(), b"there" * 3000)
        took = time.monotonic() - began
        assert took < 10, f"others' requests took {took:.1f} s"
        assert all(writer.poll() is None for writer in writers), "a frozen file system was written to"
    for number, writer in enumerate(writers):
        equal(writer.wait(30), 0, f"touch {number}")
        assert (top / f"d{number}/new").exists()
    volume.unmount()
    disk.remove()


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
    # The kernel keeps a share, and rounds it.
    least = min(64 << 20, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 32)
    assert unwritten > least * 0.99, f"{unwritten} bytes may be unwritten, not {least}"
    volume.unmount()
    with personal(volume) as own:
        own.init().mount(options="")
        equal(as_user(*ids(USER), bounds, own.mountpoint)[0], 128, "KiB read ahead for a plain user")
        own.unmount()
