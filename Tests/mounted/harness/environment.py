"""Settings of a run, from the environment that Tests/run sets."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def program() -> str:
    """The program under test, as an absolute path."""
    path = Path(os.environ.get("LETHEFS", REPOSITORY / ".build/release/lethefs"))
    return str(path if path.is_absolute() else REPOSITORY / path)


def backend_name() -> str:
    """`lethefs`, or a stand-in against which the tests themselves are tried."""
    return os.environ.get("LETHEFS_TEST_BACKEND", "lethefs")


def full_run() -> bool:
    """True when sizes and counts are the full ones, false for the quick run."""
    return os.environ.get("LETHEFS_TEST_FULL") == "1"


def work_root() -> Path:
    """Directory below which everything that a run creates lies; its name marks our processes and mounts."""
    return Path(os.environ["LETHEFS_TEST_WORK"])
