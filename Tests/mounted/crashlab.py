"""A short run of the crash laboratory; Tests/crashlab/run is the whole of it, docs/CRASHES.md what it found."""

import os
from pathlib import Path

from harness import full_run, on_volume, run
from harness.disk import SmallDisk
from harness.environment import REPOSITORY, program


@on_volume(limit=600, needs=["lethefs"])
def power_cuts_at_every_write(volume):
    """States after a power cut: nothing fsynced is unreadable, whatever was torn at 4 KiB or written out of order."""
    states, rounds = (48, 2) if full_run() else (12, 1)
    done = run([REPOSITORY / "Tests/crashlab/run", "--states", states, "--rounds", rounds, "--fuse", 40],
               env={"LETHEFS": program(), "LETHEFS_TEST_DIR": str(volume.root)}, limit=590, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@on_volume(limit=60, needs=["lethefs"])
def init_tells_of_a_device_that_may_tear_a_page(volume):
    disk = SmallDisk(volume)
    device = os.stat(volume.lower).st_dev
    queue = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue")
    bytes_at_once = int((queue / "physical_block_size").read_text())
    said = volume.command("init", volume.lower).stdout
    assert (f"writes {bytes_at_once} bytes as a whole" in said) == (bytes_at_once < 4096), said
    disk.remove()
