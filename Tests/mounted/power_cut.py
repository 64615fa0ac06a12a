"""Power cut under the lower ext4 while programs write: what was acknowledged by fsync is there, and never an error.

The journals lie on another file system, so they tell everything that was acknowledged before the cut.
"""

import os
import random
import time

from crash import Journal, create_until_killed, data_of, verify, write_until_killed
from harness import equal, full_run, on_volume
from harness.disk import SmallDisk

ROUNDS = 25 if full_run() else 4


def tree_until_killed(top, journal, seed, name):
    """Directories within directories, long names, a file flushed in each: its path must not be what is missing."""
    number = 0
    while True:
        number += 1
        path = top / f"{name}.{number}"
        for part in ("plain", "n" * 200, "deep"):
            path = path / part
        os.makedirs(path)
        path = path / ("f" * (number % 250 + 1))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(fd, data_of(f"{seed}.{number}", number % 5000))
        os.fsync(fd)
        os.close(fd)
        journal.say("tree", path.relative_to(top), f"{seed}.{number}", number % 5000)


WRITERS = (write_until_killed, write_until_killed, create_until_killed, tree_until_killed)


@on_volume(limit=1200, needs=["daemon"])
def power_cut(volume):
    disk = SmallDisk(volume, mebibytes=256)
    volume.init().mount()
    chance = random.Random(7)
    for turn in range(ROUNDS):
        journals, children = [], []
        for number, function in enumerate(WRITERS):
            journal = Journal(volume.root / f"power{number}")
            pid = os.fork()
            if pid == 0:
                try:
                    function(volume.mountpoint, journal, f"{turn}.{number}", f"w{turn}.{number}")
                except OSError:
                    pass  # The power is gone.
                os._exit(0)
            journals.append(journal)
            children.append(pid)
        time.sleep(0.2 + chance.random() * 1.5)
        disk.cut_power()
        volume.kill(children)
        disk.remove()
        disk.mount()
        told = [journal.lines() for journal in journals]
        assert all(told), "a writer did nothing"
        volume.mount()
        for number in (0, 1):
            verify(volume.mountpoint / f"w{turn}.{number}", told[number])
        for lines in told[2:]:
            for _, name, seed, length in lines:
                equal((volume.mountpoint / name).read_bytes(), data_of(seed, int(length)), name)
    volume.unmount().check()
    disk.remove()
