"""A short run of the crash laboratory; Tests/crashlab/run is the whole of it, docs/CRASHES.md what it found."""

from harness import full_run, on_volume, run
from harness.environment import REPOSITORY, program


@on_volume(limit=600, needs=["lethefs"])
def power_cuts_at_every_write(volume):
    """States after a power cut: nothing fsynced is unreadable, whatever was torn at 4 KiB or written out of order."""
    states, rounds = (48, 2) if full_run() else (12, 1)
    done = run([REPOSITORY / "Tests/crashlab/run", "--states", states, "--rounds", rounds, "--fuse", 40],
               env={"LETHEFS": program(), "LETHEFS_TEST_DIR": str(volume.root)}, limit=590, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
