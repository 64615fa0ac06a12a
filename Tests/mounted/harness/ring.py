"""The kernel's switch for FUSE over io_uring."""

from contextlib import contextmanager
from pathlib import Path

#: Of all mounts that are made from then on. Kernels that do not know io_uring for FUSE have no such file.
SWITCH = Path("/sys/module/fuse/parameters/enable_uring")


@contextmanager
def switched(value):
    """It is the whole host's: it is put back."""
    before = SWITCH.read_text().strip()
    SWITCH.write_text(value)
    try:
        yield
    finally:
        SWITCH.write_text(before)
