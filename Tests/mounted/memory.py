"""The daemon's memory: bounded whatever the number of files, never dumped, locked where keys lie."""

import errno
import os
import pwd
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from harness import Volume, as_user, full_run, on_volume, raises
from harness.process import alive

FILES = 100_000 if full_run() else 5_000
DIRECTORIES = 100
MOST_KIB, GROWTH_KIB = 100 << 10, 8 << 10


def status(pid) -> dict:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def resident_kib(pid) -> int:
    return int(status(pid)["VmRSS"].split()[0])


def fill(top, number):
    directory = os.path.join(top, f"directory {number}")
    os.mkdir(directory)
    for file in range(FILES // DIRECTORIES):
        with open(f"{directory}/file {file}", "wb", buffering=0) as opened:
            opened.write(b"content %d" % file)


def walk(top) -> int:
    """Stats everything, as find does, and reads one file of each directory."""
    count = 0
    for directory, _, names in os.walk(top):
        for name in names:
            os.lstat(os.path.join(directory, name))
            count += 1
        if names:
            Path(directory, names[0]).read_bytes()
    return count


@on_volume(limit=900, needs=["daemon"])
def many_files(volume):
    volume.init().mount()
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(fill, [str(volume.mountpoint)] * DIRECTORIES, range(DIRECTORIES)))
    volume.remount()
    pid = volume.pid()
    start = resident_kib(pid)
    assert walk(volume.mountpoint) == FILES
    full = resident_kib(pid)
    assert full < MOST_KIB, f"{full} KiB resident with {FILES} files known"
    Path("/proc/sys/vm/drop_caches").write_text("2")
    left = full
    for _ in range(100):  # The kernel's FORGETs arrive by and by.
        left = resident_kib(pid)
        if left <= start + GROWTH_KIB:
            break
        time.sleep(0.1)
    assert left <= start + GROWTH_KIB, f"{start} KiB at the start, {full} at the top, {left} after drop_caches"
    assert walk(volume.mountpoint) == FILES, "after the inodes were forgotten"
    volume.unmount()


@on_volume(limit=300, needs=["daemon"])
def steady_use_does_not_grow(volume):
    """Opens, writes, renames and deletes over and over leave nothing behind in the daemon."""
    volume.init().mount()
    pid, levels = volume.pid(), []
    rounds = 8 if full_run() else 4
    for _ in range(rounds):
        for number in range(400):
            path = volume.mountpoint / f"f{number}"
            path.write_bytes(b"x" * 10_000)
            os.setxattr(path, "user.x", b"y")
            os.rename(path, volume.mountpoint / "renamed")
            (volume.mountpoint / "renamed").read_bytes()
            os.unlink(volume.mountpoint / "renamed")
        levels.append(resident_kib(pid))
    assert levels[-1] - levels[1] < 8 << 10, f"resident KiB after each round: {levels}"
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    assert descriptors < 200, f"the daemon holds {descriptors} descriptors with no file open"
    volume.unmount()


@on_volume(needs=["daemon", "lethefs"])
def keys_are_locked_and_never_dumped(volume):
    volume.init().mount()
    (volume.mountpoint / "f").write_bytes(b"x" * 10_000)
    pid = volume.pid()
    assert int(status(pid)["VmLck"].split()[0]) > 0, "no memory is locked"
    limits = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
                  if line.startswith("Max core file size"))
    assert limits.split()[4:6] == ["0", "0"], limits
    volume.unmount()
    assert not alive(pid), "the daemon is still there"


@on_volume(needs=["daemon"])
def memory_is_closed_to_its_own_user(volume):
    """Not dumpable: a process of the user who mounted can neither trace the daemon nor read its memory."""
    entry = pwd.getpwnam("nobody")
    with Volume(volume.root / "personal", user="nobody") as own:
        own.init().mount(options="")
        pid = own.pid()
        for name in ("mem", "environ"):
            raises((errno.EACCES, errno.EPERM), as_user, entry.pw_uid, entry.pw_gid,
                   lambda: open(f"/proc/{pid}/{name}", "rb").close())
        own.unmount()


@on_volume(needs=["daemon", "lethefs"])
def no_core_file(volume):
    """A daemon ended by SIGABRT leaves no core anywhere we can see."""
    volume.init().mount()
    pid = volume.pid()
    os.kill(pid, 6)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.05)
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    found = [path for top in (volume.root, Path("/")) for path in top.glob("core*") if path.is_file()]
    assert not found, f"core files with pattern {pattern}: {found}"


@on_volume(limit=90, needs=["daemon", "lethefs"])
def secrets_are_not_arguments(volume):
    """No key and no PIN stands in the command line or environment of the daemon."""
    volume.init().mount()
    pid = volume.pid()
    pins = [path.read_text().strip() for path in volume.home.rglob("*") if "pin" in path.name.lower() and path.is_file()]
    shown = (Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()).decode(errors="replace")
    assert not [pin for pin in pins if pin and pin in shown], "a PIN is visible to other processes"
    volume.unmount()
