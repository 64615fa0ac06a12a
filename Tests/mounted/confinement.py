"""What the daemon has given up once it serves: capabilities, and system calls that it has no use for."""

import json
import os
import time
from pathlib import Path

from harness import equal, on_volume, run
from harness.environment import program

# capabilities(7): CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, IPC_LOCK, SYS_ADMIN, SYS_NICE, MKNOD.
KEPT = sum(1 << number for number in (0, 1, 2, 3, 4, 14, 21, 23, 27))


def guardian_of(volume):
    return json.loads(volume.command("status", volume.mountpoint, "--json").stdout).get("guardian")


def threads(pid):
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        yield dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@on_volume(limit=60, needs=["daemon"])
def roots_daemon_keeps_little(volume):
    volume.init().mount()
    mine = int(next(threads(os.getpid()))["CapEff"], 16)
    for thread in threads(volume.pid()):
        for field in "CapEff", "CapPrm", "CapBnd":
            assert int(thread[field], 16) == KEPT & mine, f"{thread['Name']}: {field} {thread[field]}"
        assert int(thread["CapInh"], 16) == 0 and int(thread["CapAmb"], 16) == 0, thread
        assert thread["NoNewPrivs"] == "1" and thread["Seccomp"] == "2", thread
    volume.unmount()


@on_volume(limit=60, needs=["daemon"])
def its_guardian_keeps_nothing_even_a_second_one(volume):
    volume.init().mount()
    first = guardian_of(volume)
    os.kill(first, 9)
    guardian = first
    for _ in range(100):
        guardian = guardian_of(volume)
        if guardian not in (None, first):
            break
        time.sleep(0.1)
    assert guardian not in (None, first), "the guardian was not replaced"
    for thread in threads(guardian):
        assert int(thread["CapEff"], 16) == 0 and int(thread["CapPrm"], 16) == 0, thread
        assert thread["NoNewPrivs"] == "1" and thread["Seccomp"] == "2", thread
    # The kernel ends it last when memory runs out, where root may say so (CAP_SYS_RESOURCE); the daemon has what everybody has.
    mine = int(next(threads(os.getpid()))["CapEff"], 16)
    wanted = "-1000" if mine >> 24 & 1 else Path("/proc/self/oom_score_adj").read_text().strip()
    equal(Path(f"/proc/{guardian}/oom_score_adj").read_text().strip(), wanted)
    equal(Path(f"/proc/{volume.pid()}/oom_score_adj").read_text(), Path("/proc/self/oom_score_adj").read_text())
    volume.unmount()


@on_volume(limit=60, needs=["daemon"])
def it_ends_by_itself_and_takes_its_mount_away(volume):
    """umount2(2) is not among what is refused."""
    volume.init().mount()
    pid = volume.pid()
    os.kill(pid, 15)
    for _ in range(200):
        if not os.path.ismount(volume.mountpoint):
            break
        time.sleep(0.05)
    assert not os.path.ismount(volume.mountpoint)


@on_volume(limit=30, needs=["lethefs"])
def its_functions_are_bound_as_it_starts(volume):
    """The table of them can be made read-only then, and no first call saves registers to a stack."""
    assert "BIND_NOW" in run(["readelf", "-d", program()]).stdout
    assert "GNU_RELRO" in run(["readelf", "-lW", program()]).stdout
