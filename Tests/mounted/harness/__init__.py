"""What every mounted test uses: a volume, bounded subprocesses, system calls Python lacks, comparisons."""

from .cases import on_mount, on_volume, part
from .check import differs, equal, raises, wait_until
from .environment import full_run
from .process import Failed, as_user, run, spawn
from .volume import Volume

__all__ = [
    "Failed", "Volume", "as_user", "differs", "equal", "full_run", "on_mount", "on_volume", "part", "raises", "run",
    "spawn", "wait_until",
]
