"""The kernel's switch for FUSE over io_uring."""

import os
from contextlib import contextmanager
from pathlib import Path

#: Of all mounts that are made from then on. Kernels that do not know io_uring for FUSE have no such file.
SWITCH = Path("/sys/module/fuse/parameters/enable_uring")


def can_switch():
    return os.access(SWITCH, os.W_OK)


@contextmanager
def switched(value):
    """For the moment of a mount: it is the whole host's, and is put back."""
    before = SWITCH.read_text().strip()
    SWITCH.write_text(value)
    try:
        yield
    finally:
        SWITCH.write_text(before)


@contextmanager
def kept():
    """Whatever becomes of those who switched it, it is afterwards what it was."""
    before = SWITCH.read_text().strip() if can_switch() else None
    try:
        yield
    finally:
        if before and SWITCH.read_text().strip() != before:
            SWITCH.write_text(before)
