"""A day of stress, compressed: stress-ng's file system stressors, then fio with checksums; no error, and no memory that grows.

LETHEFS_TEST_STRESS_SECONDS says for how long, both parts together: 60 in a full run of the tests, 8 in a quick one. The long
campaign is `LETHEFS_TEST_STRESS_SECONDS=600 Tests/run --no-build stress`.
"""

import os
import re
import time
from pathlib import Path

from harness import full_run, on_volume, run

SECONDS = int(os.environ.get("LETHEFS_TEST_STRESS_SECONDS", "60" if full_run() else "8"))
#: Each works in its own directory below --temp-path, most with --verify.
STRESSORS = ["access", "chdir", "chmod", "chown", "copy-file", "dentry", "dir", "dirdeep", "dirmany", "fallocate", "fiemap",
             "file-ioctl", "filename", "flock", "fpunch", "fsize", "getdent", "hdd", "io", "iomix", "link", "lockf",
             "metamix", "mmap", "open", "readahead", "rename", "seek", "symlink", "sync-file", "touch", "truncate",
             "unlink", "utime", "xattr"]
#: So that the time goes into operations and not into large files.
SMALL = {"hdd": ["--hdd-bytes", "16m"], "iomix": ["--iomix-bytes", "16m"], "fallocate": ["--fallocate-bytes", "16m"],
         "seek": ["--seek-size", "16m"], "copy-file": ["--copy-file-bytes", "128m"],
         "mmap": ["--mmap-bytes", "16m", "--mmap-file"], "readahead": ["--readahead-bytes", "16m"],
         "sync-file": ["--sync-file-bytes", "16m"]}
# What the kernel and libfuse 3.14 do not offer on any FUSE file system counts as a stressor that was skipped, not as a fault.
GROWTH_KIB = 48 << 10


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def stress(volume, seconds):
    """All stressors one after the other, two at a time; the time is shared among them."""
    directory = volume.mountpoint / "stress"
    directory.mkdir()
    each = max(1, seconds // len(STRESSORS))
    known = run(["stress-ng", "--stressors"]).stdout.split()
    failed = []
    deadline = time.monotonic() + seconds
    for name in STRESSORS:
        if name not in known or time.monotonic() > deadline:
            continue
        done = run(["stress-ng", f"--{name}", "2", "--timeout", f"{each}s", "--verify", "--temp-path", directory,
                    *SMALL.get(name, ())],
                   limit=each + 120, check=False, cwd=directory)
        # 3: not supported here.
        if done.returncode not in (0, 3):
            failed.append(f"{name}: status {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
    return failed


@on_volume(limit=SECONDS * 4 + 400, needs=["daemon"])
def stressors_and_verified_io(volume):
    volume.init().mount()
    # The first round warms up, with all that the second one does and more; what is added then would go on growing.
    failed = stress(volume, SECONDS // 2)
    verified_io(volume, 2)
    first = settled_kib(volume)
    failed += stress(volume, SECONDS // 4)
    assert not failed, "; ".join(failed)
    verified_io(volume, max(2, SECONDS // 4))
    last = settled_kib(volume)
    assert last < first + GROWTH_KIB, f"{first} KiB resident after the first round, {last} KiB at the end"
    volume.unmount().check()


def verified_io(volume, seconds):
    run(["fio", "--name=verify", f"--directory={volume.mountpoint}", "--size=24m", "--rw=randrw", "--bsrange=512-64k",
         "--blockalign=512", "--ioengine=psync", "--numjobs=2", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=64",
         "--time_based", f"--runtime={seconds}", "--thread", "--output-format=terse", "--fsync=128", "--verify_state_save=0"],
        limit=SECONDS + 120)


def settled_kib(volume):
    """What is resident when the files are gone and the daemon has had the time to give memory back."""
    run(["rm", "-rf", volume.mountpoint / "stress"], limit=120)
    lowest, deadline = resident_kib(volume.pid()), time.monotonic() + 5
    while time.monotonic() < deadline:
        time.sleep(0.5)
        lowest = min(lowest, resident_kib(volume.pid()))
    return lowest
