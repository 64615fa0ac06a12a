"""Getting rid of mounts, also of those whose daemon hangs or is dead. Nothing here touches a mount by path first."""

import ctypes
import os
import time
from pathlib import Path

CONNECTIONS = Path("/sys/fs/fuse/connections")
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
_libc = ctypes.CDLL(None, use_errno=True)


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def mounts_under(root) -> list[tuple[str, str, str]]:
    """(mount point, device "major:minor", type) of each mount at or below `root`, the newest first."""
    root = str(root)
    found = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, right = line.split(" - ", 1)
        fields = left.split()
        point = _unescape(fields[4])
        if point == root or point.startswith(root + "/"):
            found.append((point, fields[2], right.split()[0]))
    return found[::-1]


def is_mounted(point) -> bool:
    return any(path == str(point) for path, _, _ in mounts_under(point))


def abort_under(root):
    """Aborts every FUSE connection mounted below `root`: whoever waits for a hung daemon gets ECONNABORTED."""
    for _, device, kind in mounts_under(root):
        if kind.startswith("fuse") and not kind.startswith("fusectl"):
            try:
                (CONNECTIONS / device.split(":")[1] / "abort").write_text("1")
            except OSError:
                pass  # The connection is gone already.


def detach(point) -> bool:
    return _libc.umount2(os.fsencode(str(point)), MNT_DETACH | UMOUNT_NOFOLLOW) == 0


def release_under(root):
    """Aborts and detaches every mount below `root`."""
    abort_under(root)
    for _ in range(50):
        points = mounts_under(root)
        if not points:
            return
        for point, _, _ in points:
            detach(point)
        time.sleep(0.05)
    raise RuntimeError(f"still mounted: {mounts_under(root)}")
