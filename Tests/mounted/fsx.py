"""Random operations compared with a model (fsx.c), by one thread and by several; the seed is in every message."""

import functools
import os
import tempfile

from harness import full_run, part, run
from harness.backends import BACKENDS
from harness.environment import backend_name
from harness.tree import digest

OPERATIONS = 120_000 if full_run() else 10_000


@functools.cache
def program():
    """The compiled fsx.c, in the run's work directory."""
    directory = tempfile.mkdtemp(prefix="fsx.", dir=os.environ["LETHEFS_TEST_WORK"])
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fsx.c")
    run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", f"{directory}/fsx", source])
    return f"{directory}/fsx"


def exercise(volume, seed, threads=1, region=0, maximum=3 << 20, operations=OPERATIONS):
    volume.init().mount()
    models = volume.root / "models"
    models.mkdir()
    lacking = BACKENDS[backend_name()].lacking_operations
    run([program(), "-s", seed, "-n", operations // threads, "-t", threads, "-l", maximum, "-m", models,
         *(["-r", region] if region else []), *(["-x", lacking] if lacking else []), volume.mountpoint], limit=900)
    volume.remount()
    for model in sorted(models.iterdir()):
        assert digest(volume.mountpoint / model.name) == digest(model), f"seed {seed}: file {model.name} after a remount"
    volume.unmount().check()


seed = int(os.environ.get("LETHEFS_TEST_SEED", "1"))


def one_thread(volume):
    exercise(volume, seed)


def small_file(volume):
    """Everything happens within the first few pages."""
    exercise(volume, seed + 1, maximum=20_000)


def several_threads(volume):
    exercise(volume, seed + 2, threads=4)


def disjoint_regions_of_one_file(volume):
    exercise(volume, seed + 3, threads=4, region=4096, maximum=1 << 20)


def disjoint_parts_of_pages(volume):
    exercise(volume, seed + 4, threads=4, region=1024, maximum=1 << 20)


for function in (one_thread, small_file, several_threads, disjoint_regions_of_one_file, disjoint_parts_of_pages):
    part("", function, limit=1000)
for number in range(10, 15):
    def more_seeds(volume, number=number):
        exercise(volume, seed + number, operations=OPERATIONS // 4, maximum=200_000)
    part(f"[{number}]", more_seeds, limit=600, quick=False)
